"""What the command ``latentscale`` can do, one file a command."""
