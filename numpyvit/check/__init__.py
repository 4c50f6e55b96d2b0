"""Checks of numerical code: gradients against differences, for your own ops and layers."""

from __future__ import annotations

from numpyvit.check.report import GradcheckError, GradcheckReport, InputReport
from numpyvit.check.gradient import gradcheck
from numpyvit.check.operation import check_op

__all__ = ["GradcheckError", "GradcheckReport", "InputReport", "check_op", "gradcheck"]
