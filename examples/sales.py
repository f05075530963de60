"""Sales: a text about a product from its attributes, every one of them in it and none of another product.

python examples/sales.py

An automaton accepts what names the attributes in their order, another what names none of the other products', and
guidance raises cheerful words. The form is certain by construction, and checked once more in the text itself. Limits:
the shipped model has read children's stories, so that what stands between the facts is of that kind, and it may say
more than the attributes do: a constraint keeps out words, not claims.
"""

import re

import numpy as np

import energy_dllm as ed


PRODUCTS = (
    {"look": "red", "thing": "kite", "stuff": "silk"},
    {"look": "big", "thing": "lamp", "stuff": "wood"},
    {"look": "old", "thing": "drum", "stuff": "clay"},
)
CHEERFUL = ("happy", "fun", "love", "nice", "beautiful", "smile", "play", "good", "best", "great")


def foreign(product: dict[str, str]) -> list[str]:
    """The words of all other products."""
    return sorted({word for other in PRODUCTS for word in other.values()} - set(product.values()))


def evidence_of(model: ed.EnergyDLLM, product: dict[str, str], length: int) -> ed.flow.AbstractEvidence:
    """Every attribute, as a word, in its order; no word of another product."""
    form = f".* {product['look']} {product['thing']} .* {product['stuff']}[ .,].*"
    facts = ed.flow.Matching(form, model.tokenizer, length=length)
    return facts + ed.flow.Matching.without(foreign(product), model.tokenizer, length=length)


def main(model: ed.EnergyDLLM | None = None, length: int = 40, samples: int = 4, seed: int = 0) -> dict[float, float]:
    """Print one text a product without and with the tone; return cheerful words a text by tone. Facts are checked."""
    model = ed.load("stories") if model is None else model
    tokens = [model.decode(np.array([n])).strip() for n in range(model.size)]
    bright = np.array([any(len(token) > 2 and token in word for word in CHEERFUL) for token in tokens])
    mood, words = ed.energy.Guidance(lambda p: -p[:, bright].sum(), name="tone"), {}
    settings = dict(length=length, prompt="Look", samples=samples, seed=seed)
    for tone in (0.0, 1.0):
        texts = []
        for product in PRODUCTS:
            evidence = evidence_of(model, product, length)
            made = ed.generate(model, evidence=evidence, guidance=tone * mood, **settings).texts
            for text in made:
                missing = [fact for fact in product.values() if fact not in re.split(r"[ .,]", text)]
                wrong = [word for word in foreign(product) if word in text]
                if missing or wrong:
                    raise ValueError(f"{text!r} lacks {missing} and has {wrong}; the automaton allows neither.")
            print(f"tone {tone}: {', '.join(product.values())}: {made[0]!r}")
            texts += made
        words[tone] = sum(text.count(word) for text in texts for word in CHEERFUL) / len(texts)
        print(f"tone {tone}: {len(texts)} texts, all facts and no others; {words[tone]:.2f} cheerful words a text")
    return words


if __name__ == "__main__":
    main()
