"""The typer application: one command per module."""

import typer

from .demo import demo
from .doctor import doctor

app = typer.Typer(
    help="Fused vocabulary heads for PyTorch: see them work, see what was built.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # reflows a docstring's lines
    pretty_exceptions_show_locals=False,
)
app.command()(demo)
app.command()(doctor)


@app.callback()
def lossk() -> None:
    pass  # without a callback typer would drop the command's name where only one is registered
