"""What the commands share: console, options, interrupts, checks before slow work, composition of settings."""
