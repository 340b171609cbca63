"""The checks of `steer_env.checks` under the name they had here."""

from steer_env.checks import check_choice, check_integers, check_numbers, check_switches

__all__ = ["check_choice", "check_integers", "check_numbers", "check_switches"]
