"""What is answered, as schemas of the OpenAPI document; `None` where a number is not finite, or nothing is known."""

from typing import Any, Literal

from pydantic import BaseModel, Field


ABSENT: Any = Field(default_factory=dict)
"""What an answer may be without."""


class _AbstractAnswer(BaseModel):
    """What every text that is written comes with."""

    id: str
    created: int
    model: str


class TokenUsage(BaseModel):
    """Tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _AbstractSettings(BaseModel):
    """How a text was written."""

    seed: int
    block: int
    budget: int
    commit: bool


class AnswerSettings(_AbstractSettings):
    """How a text was written."""


class AnswerFacts(_AbstractSettings):
    """The same, and of every choice what the scalar says."""

    sigma: list[float | None]
    free_energy: list[float | None]
    force_evaluations: list[int]


class StreamMoment(_AbstractSettings):
    """The same, and a passage at one moment of a stream."""

    index: int
    motion: str
    force_evaluations: int
    begin: int
    tokens: list[str]
    ids: list[int]
    certainty: list[float]
    given: list[bool]
    stands: int
    sigma: float | None
    free_energy: float | None


class Logprobs(BaseModel):
    """Of every token, in nats."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None] | None
    text_offset: list[int]


Reason = Literal["stop", "length"] | None


class CompletionChoice(BaseModel):
    """One text, or what is new of it."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Reason


class CompletionAnswer(_AbstractAnswer):
    """A completion; with `stream` in pieces, of which the last has the usage if it was asked for."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: TokenUsage = ABSENT
    energy_dllm: AnswerFacts | StreamMoment | AnswerSettings


class ChatToken(BaseModel):
    """One token, in nats, and where it stands what is likeliest there."""

    token: str
    logprob: float | None
    bytes: list[int]
    top_logprobs: list["ChatToken"] = ABSENT


class ChatLogprobs(BaseModel):
    """Of every token of an answer."""

    content: list[ChatToken]
    refusal: None


class ChatMessage(BaseModel):
    """A message of the assistant."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Delta(BaseModel):
    """What is new of one."""

    role: Literal["assistant"] = ABSENT
    content: str


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class DeltaChoice(BaseModel):
    """What is new of one."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class ChatCompletion(_AbstractAnswer):
    """An answer of a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: TokenUsage
    energy_dllm: AnswerFacts


class ChatChunk(_AbstractAnswer):
    """A piece of one."""

    object: Literal["chat.completion.chunk"]
    choices: list[DeltaChoice]
    usage: TokenUsage = ABSENT
    energy_dllm: StreamMoment | AnswerSettings


class InfillToken(BaseModel):
    """One token, in nats, and how many characters are before it."""

    token: str
    logprob: float | None
    top: dict[str, float | None]
    offset: int


class InfillChoice(BaseModel):
    """One passage, with its tokens at its end, or what is new of it."""

    index: int
    text: str
    finish_reason: Reason
    tokens: list[InfillToken] = ABSENT


class InfillAnswer(_AbstractAnswer):
    """A template filled; with `stream` in pieces."""

    object: Literal["infill"]
    choices: list[InfillChoice]
    usage: TokenUsage = ABSENT
    energy_dllm: AnswerFacts | StreamMoment


class RepairEdit(BaseModel):
    """What was changed, where."""

    kind: str
    position: int
    before: str
    after: str
    confidence: float | None


class RepairAnswer(BaseModel):
    """A text corrected."""

    object: Literal["repair"]
    model: str
    text: str
    edits: list[RepairEdit]
    free_energy: float | None
    force_evaluations: int
    result: str


class RecallAnswer(BaseModel):
    """The stored line that was meant, `text` and `line` being null where none was."""

    object: Literal["recall"]
    text: str | None
    best: str
    line: int | None
    exact: bool
    stored: float | None
    mass: float | None
    margin: float | None
    nearest: list[dict[str, str | float | None]]


class ScoreAnswer(BaseModel):
    """What every token costs, in nats, and the whole."""

    object: Literal["score"]
    model: str
    tokens: list[str]
    nll: list[float | None]
    likelier: list[str]
    method: Literal["chain rule", "given all others"]
    log_likelihood: float | None = ABSENT
    pseudo_log_likelihood: float | None = ABSENT
    energy_nll: float | None = ABSENT


class NeighbourToken(BaseModel):
    """What another token adds."""

    place: int
    token: str
    nats: float | None


class AttributionAnswer(BaseModel):
    """Log-odds of a token as a sum, in nats."""

    object: Literal["attribution"]
    model: str
    place: int
    token: str
    reference: str
    log_odds: float | None
    parts: dict[str, float | None]
    neighbours: list[NeighbourToken]


class PictureFile(BaseModel):
    """A PNG file in base64, and its caption."""

    b64_json: str
    revised_prompt: str


class ImageUsage(BaseModel):
    """Tokens that were read and written."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    total_tokens: int


class ImagesAnswer(BaseModel):
    """Pictures."""

    created: int
    data: list[PictureFile]
    output_format: Literal["png"]
    size: str
    usage: ImageUsage
    energy_dllm: dict[str, Any]


class ImageEvent(BaseModel):
    """A picture on its way, or at its end."""

    type: Literal[
        "image_generation.partial_image", "image_generation.completed", "image_edit.partial_image",
        "image_edit.completed",
    ]  # fmt: skip
    b64_json: str
    created_at: int
    size: str
    quality: Literal["auto"]
    background: Literal["opaque"]
    output_format: Literal["png"]
    partial_image_index: int = ABSENT
    usage: ImageUsage = ABSENT
    energy_dllm: dict[str, Any]


class ModelKind(BaseModel):
    """In which blocks a model reads text, or the pictures that it makes."""

    blocks: list[int] = ABSENT
    size: str = ABSENT
    caption: dict[str, int] = ABSENT


class Served(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    energy_dllm: ModelKind


class ServedList(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[Served]


class HealthAnswer(BaseModel):
    """Whether passages can be written at once; status 503 while not."""

    status: Literal["ok", "starting"]


class Fault(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """What was wrong; in a stream its last event."""

    error: Fault
