"""Scaling laws as software: any phi, any budget, and the search for the coefficients themselves.

- :func:`official`, :func:`compound`, :func:`deviations`: published table, formula, and how they differ;
- :func:`scaled_model_config`, :func:`model_for`, :func:`scaled_resnet50`: networks of any phi;
- :func:`count`: multiply-adds, parameters and activation bytes, exactly, without building anything;
- :func:`phi_for_budget`: the largest network within multiply-adds, parameters, memory or time;
- :func:`grid_search`: alpha, beta and gamma by a score of your own.
"""

from effnet_fast.models.coefficients import official
from effnet_fast.models.formula import Compound, compound, phi_limits
from effnet_fast.models.networks import model_for, network_stride, scaled_model_config
from effnet_fast.scaling.budget import Budgeted, Point, phi_for_budget
from effnet_fast.scaling.counting import Counts, count
from effnet_fast.scaling.deviations import Deviation, deviation_table, deviations
from effnet_fast.scaling.engines import engine_bytes, engine_milliseconds
from effnet_fast.scaling.resnet import scaled_resnet50
from effnet_fast.scaling.search import GridPoint, GridSearch, grid_points, grid_search
from effnet_fast.scaling.traffic import PLANS, activation_bytes

__all__ = [
    "PLANS",
    "Budgeted",
    "Compound",
    "Counts",
    "Deviation",
    "GridPoint",
    "GridSearch",
    "Point",
    "activation_bytes",
    "compound",
    "count",
    "deviation_table",
    "deviations",
    "engine_bytes",
    "engine_milliseconds",
    "grid_points",
    "grid_search",
    "model_for",
    "network_stride",
    "official",
    "phi_for_budget",
    "phi_limits",
    "scaled_model_config",
    "scaled_resnet50",
]
