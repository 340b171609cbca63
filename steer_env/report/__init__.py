"""What a person reads: pages, tables, plots and logs of what was played."""

from steer_env.report.plots import survival_plot

__all__ = ["survival_plot"]
