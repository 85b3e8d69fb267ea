"""Training with accelerate.

It uses one or more processes, full or mixed precision, and accumulates gradients if needed.
"""

import os
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from napari_cvdm.core.device import pick_device
from napari_cvdm.core.request import RequestError

PRECISIONS = {"fp32": "no", "bf16": "bf16"}

Terms = dict[str, Tensor]
Routes = Sequence[tuple[str, list[nn.Parameter]]]
"""Which loss term gives which parameters their gradient."""


def is_first_process() -> bool:
    """Whether this process is the only one, or the first that torchrun started.

    Only the first process asks the user, writes files and prints.
    """
    return int(os.environ.get("RANK", "0")) == 0


class Processes:
    """All processes of a training, of which this is one.

    The batch has the size that one process alone would use, and is cut into equal parts. The
    gradients therefore do not depend on the number of processes and of accumulated parts.

    Parameters
    ----------
    device : str
        As for `pick_device`. With several processes (torchrun), each takes the accelerator of its
        rank.
    accumulate : int
        Parts of a batch that are evaluated one after the other.
    batch : int
        Patches in a batch, over all processes and parts.

    Raises
    ------
    RequestError
        The batch cannot be cut in so many equal parts.
    """

    def __init__(self, device: str, precision: str, accumulate: int, batch: int) -> None:
        on_cpu = pick_device(device).type == "cpu"
        if not torch.distributed.is_initialized():
            # What an earlier training of this program chose holds no longer.
            AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=PRECISIONS[precision],
            gradient_accumulation_steps=accumulate,
        )
        several = self.accelerator.num_processes > 1
        self.device = self.accelerator.device if several else pick_device(device)
        self._parts = self.accelerator.num_processes * accumulate
        self._accumulate, self._batch = accumulate, batch
        if batch % self._parts:
            shared = f"{self.accelerator.num_processes} processes and accumulate = {accumulate}"
            raise RequestError(
                f"[plan] batch is {batch}, with {shared}; a multiple of {self._parts} is needed."
            )

    def parts(self) -> tuple[slice, ...]:
        """The patches of a batch that this process learns from, one slice after the other."""
        size = self._batch // self._parts
        first = self.accelerator.process_index * self._accumulate
        numbers = range(first, first + self._accumulate)
        return tuple(slice(size * part, size * (part + 1)) for part in numbers)

    def backward(self, terms: Terms, routes: Routes) -> Terms:
        """Add the gradient of each route to its parameters; return the loss terms, detached."""
        for index, (name, parameters) in enumerate(routes, start=1):
            # Each term gives a gradient to its own parameters alone; the last frees the graph.
            self.accelerator.backward(
                terms[name], inputs=parameters, retain_graph=index < len(routes)
            )
        return {name: term.detach() for name, term in terms.items()}

    def close(self) -> None:
        """Leave the process group.

        Threads of the group that still exist when Python ends would abort the process. The wrapped
        models keep references to these threads.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.accelerator.free_memory()
            torch.distributed.destroy_process_group()
