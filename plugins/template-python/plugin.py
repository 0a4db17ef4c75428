"""{{name}}: refuses calls that say too much."""

import json

from hooks import Exchange
from wit_world import exports
from wit_world.exports.hooks import (
    Admission,
    Description,
    End,
    Interests,
    Metric,
    MetricKind_Counter,
    Subscriptions,
    Verdict_Pass,
    Verdict_Refuse,
)
from wit_world.imports import calls, config, metrics, request, types

SCHEMA = {
    "type": "object",
    "properties": {"max_words": {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}


def max_words() -> int:
    return json.loads(config.get()).get("max_words", 1000)


class Hooks(exports.Hooks):
    def describe(self) -> Description:
        refused = Metric("refused", "Calls refused.", MetricKind_Counter(), None)
        words = Metric("words", "Words of calls that were let through.", MetricKind_Counter(), None)
        return Description(
            name="{{name}}",
            version="0.1.0",
            hooks=Subscriptions.ON_CALL | Subscriptions.ON_END,
            events=Interests(0),
            config_schema=json.dumps(SCHEMA),
            config_problem=None,
            metrics=[refused, words],
        )

    def on_call(self, call: calls.Call) -> Admission:
        exchange = Exchange()
        exchange.words = sum(len(passage.text.split()) for passage in call.texts(0))
        # Here, not in on_end: the record is written before that.
        request.tag(f"words:{exchange.words}")
        if exchange.words <= max_words():
            return Admission(Verdict_Pass(), exchange)
        metrics.add("refused", "", 1.0)
        message = f"{exchange.words} words are too many: say it in {max_words()}."
        return Admission(Verdict_Refuse(types.Refusal(400, "too_many_words", message, None)), None)

    def on_end(self, exchange: Exchange, end: End) -> None:
        metrics.add("words", "", float(exchange.words))
