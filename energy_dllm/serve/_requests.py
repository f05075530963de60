"""What may be asked, as schemas: they refuse what is not known, and are the OpenAPI document."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


TEXT = 8_192
"""Characters of a text, at most."""
TOKENS = 1_024
"""Tokens that are written for one prompt, at most."""
SAMPLES = 8
"""Passages of one request, at most."""

Text = Annotated[str, Field(max_length=TEXT)]
Count = Annotated[int, Field(ge=1, le=SAMPLES)]
Top = Annotated[int, Field(ge=0, le=5)]
Stop = Annotated[str, Field(max_length=64)]
Chance = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(max_length=200, description="One of /v1/models; the first of them by default.")]
Zero = Annotated[float, Field(ge=0, le=0, description="Not supported: 0 is all that is taken.")]
Block = Annotated[
    int,
    Field(
        ge=0,
        le=1,
        description="1: from left to right, a pass a token; 0: the descent of the whole passage. Default: 1 where the "
        "model has been trained so, and nothing is asked for that is of the whole passage.",
    ),
]
Nothing = Annotated[None, Field(description="Not supported: null is all that is taken.")]
One = Annotated[float, Field(ge=1, le=1, description="Not supported: 1 is all that is taken; see `temperature`.")]


class _AbstractStrict(BaseModel):
    """What it does not know it refuses; nothing is converted."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _AbstractWritten(_AbstractStrict):
    """What all requests for text have in common."""

    model: Name | None = None
    temperature: Annotated[float, Field(ge=0, le=2, description="Of the noise; below 0.05 as 0.05.")] | None = None
    n: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    stream: bool | None = None
    budget: (
        Annotated[int, Field(ge=4, le=256, description="Force evaluations for a passage, 25 by default.")] | None
    ) = None
    commit: bool | None = Field(
        None, description="Tokens stand as soon as they are shown, from left to right. Default: as `stream`."
    )
    avoid: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=32)] | None = None
    forbid: (
        Annotated[list[tuple[Annotated[int, Field(ge=0)], str | Annotated[int, Field(ge=0)]]], Field(max_length=256)]
        | None
    ) = Field(
        None,
        description="Tokens that may not stand at a place: [place, the token as text or id], counted from the start.",
    )
    mask_unknown: bool | None = Field(None, description="Whether unknown characters are drawn anew, not an error.")


class ResponseFormat(_AbstractStrict):
    """`text`, `regex` with a `pattern`, or `json_schema` with `{"schema": ...}`."""

    type: Literal["text", "regex", "json_schema", "json_object"]
    pattern: Annotated[str, Field(max_length=2_000)] | None = None
    json_schema: dict[str, Any] | None = None


class _AbstractAnswered(_AbstractWritten):
    """What completions and chats have in common."""

    max_tokens: Annotated[int, Field(ge=1, le=TOKENS)] | None = None
    block: Block | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=300)] | None = Field(
        None, description="Nats of evidence for a token id, at every place that is written."
    )
    response_format: ResponseFormat | None = None
    regex: Annotated[str, Field(max_length=2_000)] | None = Field(None, description="As response_format `regex`.")
    stream_options: dict[str, bool] | None = None
    user: str | None = Field(None, description="Without effect.")
    top_p: One | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None


class CompletionRequest(_AbstractAnswered):
    """`POST /v1/completions`."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=SAMPLES)] | None = None
    suffix: Text | None = Field(None, description="How the text goes on behind what is written.")
    logprobs: Top | None = None
    echo: bool | None = None
    best_of: Count | None = Field(
        None, description="From left to right: so many are written, and the `n` likeliest a token returned."
    )


class Part(_AbstractStrict):
    """A part of a message: text."""

    type: Literal["text"]
    text: Text


class Message(_AbstractStrict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=64)] | None = Field(
        description="null of an assistant alone."
    )
    name: Annotated[str, Field(max_length=64)] | None = None
    refusal: Nothing = None
    annotations: Nothing = None
    audio: Nothing = None
    function_call: Nothing = None
    tool_calls: Nothing = None


class ChatRequest(_AbstractAnswered):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    tools: Nothing = None
    tool_choice: Nothing = None
    store: Literal[False] | None = Field(None, description="Nothing is stored.")


class InfillRequest(_AbstractWritten):
    """`POST /v1/infill`."""

    template: Text = Field(description="Text with holes such as [8], eight tokens wide, or [*]; [[ is a bracket.")
    length: Annotated[int, Field(ge=1)] | Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=16)] | None = (
        None
    )
    match: Annotated[str, Field(max_length=2_000)] | None = Field(None, description="A pattern of the whole text.")


class RepairRequest(_AbstractStrict):
    """`POST /v1/repair`."""

    model: Name | None = None
    text: Annotated[str, Field(min_length=1, max_length=TEXT)]
    rate: Chance | None = None
    shifts: Annotated[int, Field(ge=0, le=2)] | None = None
    mask_unknown: bool | None = None


class RecallRequest(_AbstractStrict):
    """`POST /v1/recall`."""

    cue: Annotated[str, Field(min_length=1, max_length=TEXT)]
    lines: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(min_length=1, max_length=64)] | None
    ) = Field(None, description="What to recall from; by default what the server was started with.")
    unknown: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    threshold: Chance | None = None


class ScoreRequest(_AbstractStrict):
    """`POST /v1/score`."""

    model: Name | None = None
    block: Block | None = None
    text: Annotated[str, Field(min_length=1, max_length=TEXT)]


class AttributionRequest(_AbstractStrict):
    """`POST /v1/attribution`."""

    model: Name | None = None
    text: (
        Annotated[str, Field(min_length=1, max_length=TEXT)]
        | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=TEXT)]
    ) = Field(description="Or its token ids, as a stream gives them: read again, a text may have other tokens.")
    place: Annotated[int, Field(ge=0)]
    reference: str | None = Field(None, description="The token it is compared with; by default the likeliest other.")


class _AbstractPictured(_AbstractStrict):
    """What requests for pictures have in common."""

    model: Name | None = None
    n: Count | None = None
    size: (
        Annotated[str, Field(max_length=20, description="That of the model's pictures, as 28x28, or auto.")] | None
    ) = None
    response_format: Literal["b64_json"] | None = Field(None, description="There are no addresses of pictures.")
    output_format: Literal["png"] | None = None
    quality: Literal["auto"] | None = None
    background: Literal["auto", "opaque"] | None = None
    user: str | None = Field(None, description="Without effect.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, description="Of the noise; below 0.05 as 0.05.")] | None = None
    budget: (
        Annotated[int, Field(ge=4, le=256, description="Force evaluations, 48 by default, to fill a hole 64.")] | None
    ) = None
    stream: bool | None = None
    partial_images: (
        Annotated[int, Field(ge=0, le=63, description="Moments that a stream shows before the end.")] | None
    ) = None


class ImageRequest(_AbstractPictured):
    """`POST /v1/images/generations`."""

    prompt: Text = Field(description="The caption, such as seven; empty: it is sampled with the picture.")


File = Annotated[
    str, Field(json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png", "minLength": 1})
]


class ImageEditRequest(_AbstractPictured):
    """`POST /v1/images/edits`, as JSON or as a form with files."""

    form: ClassVar[bool] = True

    image: File = Field(description="A PNG file of the size of the model's pictures; in JSON in base64.")
    mask: File | None = Field(
        None, description="The same: it is filled where this is transparent; by default where the image is."
    )
    prompt: Text | None = Field(None, description="The caption; by default it is found.")
