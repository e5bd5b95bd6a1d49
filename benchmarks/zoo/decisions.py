"""Recurrent policies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.zoo.subject import Subject, entry


@entry("sb3-contrib", "RecurrentActorCriticPolicy")
def _recurrent_policy() -> Subject:
    import gymnasium as gym
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    space = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)
    policy = RecurrentActorCriticPolicy(space, gym.spaces.Discrete(3), lambda _: 1e-3, lstm_hidden_size=12)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(
            self, observation: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor, starts: torch.Tensor
        ) -> Any:
            features = self.policy.extract_features(observation)
            states = (hidden, cell)
            latent, (h, c) = self.policy._process_sequence(features, states, starts, self.policy.lstm_actor)
            latent = self.policy.mlp_extractor.forward_actor(latent)
            return self.policy._get_action_dist_from_latent(latent).distribution.logits, h, c

    assert RNNStates is not None
    return Subject(
        Step(),
        lambda b, t: (torch.randn(b, 5), torch.zeros(1, b, 12), torch.zeros(1, b, 12), (torch.rand(b) < 0.2).float()),
        causal=True,
        carried={"hidden": 1, "cell": 2},
    )


@entry("pfrl", "RecurrentSequential")
def _pfrl() -> Subject:
    from pfrl.nn import RecurrentSequential

    module = RecurrentSequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.LSTM(8, 8), torch.nn.Linear(8, 3))

    class Policy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # [time, batch, 5]
            x = torch.relu(self.net[0](x))
            return self.net[3](self.net[2](x)[0])

    return Subject(Policy(), lambda b, t: torch.randn(t, b, 5), causal=True)


@entry("torchrl", "LSTM (Python)")
def _torchrl_lstm() -> Subject:
    from torchrl.modules.tensordict_module.rnn import LSTM

    module = LSTM(5, 8, num_layers=1, batch_first=True)

    class Policy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = module

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
            return self.lstm(x, (h, c))

    return Subject(
        Policy(),
        lambda b, t: (torch.randn(b, t, 5), torch.zeros(1, b, 8), torch.zeros(1, b, 8)),
        causal=True,
    )


@entry("torchrl", "GRU (Python)")
def _torchrl_gru() -> Subject:
    from torchrl.modules.tensordict_module.rnn import GRU

    class Policy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = GRU(5, 8, num_layers=1, batch_first=True)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> Any:
            return self.gru(x, h)

    return Subject(Policy(), lambda b, t: (torch.randn(b, t, 5), torch.zeros(1, b, 8)), causal=True)
