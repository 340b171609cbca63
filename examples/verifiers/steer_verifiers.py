"""The package that verifiers finds by its name, `[env.taskset] id = "steer_verifiers"`."""

from steer_env.interop.verifiers import SteerEnv, SteerTaskset

__all__ = ["SteerEnv", "SteerTaskset"]
