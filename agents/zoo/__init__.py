"""Published attacks as players of the attacker's seat, see docs/attacks.md."""

from __future__ import annotations
