"""What tests share: calling the command, planted faults, sample reports, random networks."""
