"""Boosted trees on the window's last session, and the same trees as one node of an ONNX graph."""

from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor, nn

from pitwise.evaluation.ranking import TreesParams
from training.models.inputs import KindParams

OPERATOR, VERSION = "ai.onnx.ml::TreeEnsembleRegressor", 3
"""What runs the trees in onnxruntime, and the version of its definition."""


class GradientBoostingParams(TreesParams, KindParams):
    """As for the trees of `pitwise.evaluation.ranking`; the seed is `train.seed`."""


class GradientBoosting(nn.Module):
    """scikit-learn's histogram trees (Ke et al. 2017, LightGBM) of the last session.

    They give the score themselves; there is no layer above them.
    """

    size = None
    sessions = 1

    def __init__(self, window: int, n_features: int, params: GradientBoostingParams):
        super().__init__()
        self.trees = HistGradientBoostingRegressor(
            max_iter=params.iterations,
            learning_rate=params.learning_rate,
            max_leaf_nodes=params.max_leaf_nodes,
            min_samples_leaf=params.rows_per_leaf,
            l2_regularization=params.l2,
            max_features=params.columns,
            early_stopping=False,  # scikit-learn's own would hold out rows at random, across dates
        )

    def forward(self, last: Tensor) -> Tensor:
        """The last session (batch, n), see `Scaler.last_session`, to (batch, 1)."""
        if torch.compiler.is_exporting():
            shape = (last.shape[0], 1)
            return torch.onnx.ops.symbolic(
                OPERATOR, (last,), self.attributes(), dtype=torch.float32, shape=shape, version=VERSION
            )
        return torch.from_numpy(self.trees.predict(last.numpy())[:, None]).float()

    def attributes(self) -> dict[str, Any]:
        """The trees as the operator has them: nodes end to end, each with its tree's number and its own.

        Built from scikit-learn's arrays of nodes: skl2onnx would do the same, but is one more library
        whose newest version fails on the newest onnx.
        """
        grown = [trees[0].nodes for trees in self.trees._predictors]
        nodes = np.concatenate(grown)
        tree = np.repeat(np.arange(len(grown)), [len(one) for one in grown])
        number = np.concatenate([np.arange(len(one)) for one in grown])
        leaf = nodes["is_leaf"].astype(bool)
        # Values are float32 and thresholds float64: x <= t as long as t is rounded down.
        threshold = nodes["num_threshold"].astype("float32")
        above = threshold > nodes["num_threshold"]
        threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
        return {
            "n_targets": 1,
            "base_values": [float(self.trees._baseline_prediction.item())],
            "nodes_treeids": tree.tolist(),
            "nodes_nodeids": number.tolist(),
            "nodes_featureids": nodes["feature_idx"].tolist(),
            "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
            "nodes_values": np.where(leaf, np.float32(0), threshold).tolist(),
            "nodes_truenodeids": nodes["left"].tolist(),
            "nodes_falsenodeids": nodes["right"].tolist(),
            "target_treeids": tree[leaf].tolist(),
            "target_nodeids": number[leaf].tolist(),
            "target_ids": [0] * int(leaf.sum()),
            "target_weights": nodes["value"][leaf].tolist(),
        }
