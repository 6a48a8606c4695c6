"""What a plug-in implements: target, runtime, source, bridge, report format, trainer, executor."""
