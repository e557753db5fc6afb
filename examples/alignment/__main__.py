"""python -m examples.alignment: pretrains, then GRPO, DPO and distillation from there; six minutes on two cores."""

from rich.console import Console
from rich.table import Table

from . import distill, dpo, grpo
from .lm import pretrain

EVERY = 5  # steps a row


def main() -> None:
    console = Console()
    with console.status("pretraining"):
        start = pretrain()
    runs = {"GRPO": grpo.train(start), "DPO": dpo.train(start), "distillation": distill.train(start)}
    for name, steps in runs.items():
        table = Table("step", title=name)
        for number, step in enumerate(steps):
            if number == 0:
                for field in step._fields:
                    table.add_column(field, justify="right")
            if number % EVERY == 0:
                table.add_row(str(number), *(f"{x:.3f}" for x in step))
        console.print(table)


if __name__ == "__main__":
    main()
