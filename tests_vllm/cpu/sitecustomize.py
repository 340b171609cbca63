"""Declares two operators of torchvision whose compiled half does not load beside a CPU build of torch.

On `PYTHONPATH` only where vLLM runs without a GPU: vLLM's child processes start with it too. Nothing here
calls the operators; torchvision merely wants to see them when it is imported.
"""

import torch

library = torch.library.Library("torchvision", "DEF")  # the operators live as long as this object
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
