"""`python -m services.cli` is `crowdlearn`."""

from services.cli import main

main()
