"""A task whose data may have odd rows: an empty choice, none at all, a label that is none of them.

lm-eval looks at the first row when it makes a task, and breaks where that one is odd; a row without
choices or label breaks it when the answer is judged. Either stops the whole task. Here such a row
is an item that cannot be scored, wherever it stands, and the others are scored.
"""

from __future__ import annotations

from lm_eval.api.task import ConfigurableTask

LOST = -100  # lm-eval's own mark of a label that is none of the choices


class LenientTask(ConfigurableTask):
    """What a task file asks, of rows as they are."""

    _made = False

    def __init__(self, config: dict):
        super().__init__(config={key: each for key, each in config.items() if key != "class"})
        self._made = True

    def doc_to_choice(self, doc, doc_to_choice=None) -> list[str]:
        """A row's choices; one that is empty where it has none."""
        choices = super().doc_to_choice(doc, doc_to_choice)
        if choices is None or len(choices) == 0:
            choices = [""]
        choices = ["" if each is None else each for each in choices]
        return choices if self._made else [each or " " for each in choices]

    def doc_to_target(self, doc, doc_to_target=None) -> int | str | list:
        """A row's answer; LOST where it has none, or no choices. Examples are lm-eval's affair."""
        target = super().doc_to_target(doc, doc_to_target)
        if self.OUTPUT_TYPE != "multiple_choice" or doc_to_target is not None:
            return target
        if not self._made:  # lm-eval looks up the choice, and makes no use of it
            return 0 if isinstance(target, int) else target
        if self.multiple_input:  # the text that follows every choice
            return target
        choices = super().doc_to_choice(doc)
        many = 0 if choices is None else len(choices)
        below = isinstance(target, int) and target < -many
        return LOST if target is None or many == 0 or below else target
