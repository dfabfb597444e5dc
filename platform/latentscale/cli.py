"""Where the command ``latentscale`` starts; what it can do stands in latentscale.commands."""

from latentscale.commands.app import main

if __name__ == "__main__":
    main()
