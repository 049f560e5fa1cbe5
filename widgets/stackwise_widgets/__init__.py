"""The workbench: figures and notebook widgets over the public names of stackwise."""

from stackwise_widgets.paper import PaperFigure, study_figure
from stackwise_widgets.study_data import figure_data

__all__ = ["PaperFigure", "figure_data", "study_figure"]
