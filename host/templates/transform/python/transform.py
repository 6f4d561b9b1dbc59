"""What becomes of a row: an e-mail address is trimmed and put in small letters."""

from wit_world import exports
from wit_world.exports.transformer import Outcome_Fail, Outcome_Keep, Outcome_Write
from wit_world.imports.values import Value_Null, Value_Text


class Transformer(exports.Transformer):
    def transform(self, rows):
        return [one(row) for row in rows]


def one(row):
    """The row has the columns of `read`, in their order; what is written are those of `write`."""
    match row:
        case [Value_Text(address)] if "@" in address:
            return Outcome_Write([Value_Text(address.strip().lower())])
        case [Value_Text(_)]:
            return Outcome_Fail("an address without an @")
        case [Value_Null()]:
            return Outcome_Keep()
        case _:
            return Outcome_Fail("`read` is to name one column of texts")
