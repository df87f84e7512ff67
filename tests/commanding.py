"""Commands as tests give them: in this process, and with the error itself where one fails."""

from __future__ import annotations

from typer.testing import CliRunner

from terrasieve.cli import app


def call(*words: object) -> str:
    """Call a command as the shell does.

    Args:
        words: Its name, arguments and options.

    Returns:
        What it printed, on a console of 200 columns without colours.

    Raises:
        BaseException: Whatever stopped the command.
    """
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output
