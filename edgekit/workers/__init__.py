"""Floor 2: functions in fresh, isolated Python processes; their crashes, hangs and hunger become typed errors."""
