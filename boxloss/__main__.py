"""``python -m boxloss``."""

from .cli import main

raise SystemExit(main())
