"""The training of one model: settings, modules, phases, trainer, launch."""
