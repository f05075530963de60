"""Sales: a text about a product from its attributes, every one of them in it and none of another product.

python examples/sales.py

An automaton accepts what names the attributes in their order, another what names none of the other products', and
guidance raises cheerful words. The form is certain by construction, and checked once more in the text itself. Limits:
the shipped model has read children's stories, so that what stands between the facts is of that kind, and it may say
more than the attributes do ("a red ball of wood for Tim"): a constraint keeps out words, not claims.
"""

import numpy as np

import energy_dllm as ed


PRODUCTS = (
    {"colour": "red", "thing": "ball", "stuff": "wool"},
    {"colour": "blue", "thing": "boat", "stuff": "wood"},
    {"colour": "green", "thing": "hat", "stuff": "paper"},
)
CHEERFUL = ("happy", "fun", "love", "nice", "beautiful", "smile", "play", "good", "best", "great")


def copy(model: ed.EnergyDLLM, product: dict[str, str], length: int, tone: float, samples: int, seed: int) -> list[str]:
    """Texts about one product; `tone` is the guidance in nats for each cheerful token."""
    others = {word for other in PRODUCTS for word in other.values()} - set(product.values())
    facts = ed.flow.Matching(
        f".* {product['colour']} {product['thing']} .*{product['stuff']}.*", model.tokenizer, length=length
    )
    silent = ed.flow.Matching.without(sorted(others), model.tokenizer, length=length)
    tokens = [model.decode(np.array([n])).strip() for n in range(model.size)]
    bright = np.array([any(len(t) > 2 and t in word for word in CHEERFUL) for t in tokens], float)
    mood = tone * ed.energy.Guidance(lambda p: -(p @ bright).sum(), name="tone")
    made = ed.generate(
        model, length=length, prompt="Look", evidence=facts + silent, guidance=mood, samples=samples, seed=seed
    )
    return made.texts


def main(model: ed.EnergyDLLM | None = None, length: int = 40, samples: int = 4, seed: int = 0) -> dict[float, float]:
    """Print one text a product without and with the tone; return cheerful words a text by tone. Facts are checked."""
    model = ed.load("stories") if model is None else model
    words = {}
    for tone in (0.0, 1.0):
        texts = []
        for product in PRODUCTS:
            made = copy(model, product, length, tone, samples, seed)
            foreign = {word for other in PRODUCTS for word in other.values()} - set(product.values())
            for text in made:
                missing = [fact for fact in product.values() if fact not in text]
                wrong = [word for word in foreign if word in text]
                if missing or wrong:
                    raise ValueError(f"{text!r} lacks {missing} and has {wrong}; the automaton allows neither.")
            print(f"tone {tone}: {', '.join(product.values())}: {made[0]!r}")
            texts += made
        words[tone] = sum(text.count(word) for text in texts for word in CHEERFUL) / len(texts)
        print(
            f"tone {tone}: {len(texts)} texts, all facts in all, none of others; {words[tone]:.2f} cheerful words each"
        )
    return words


if __name__ == "__main__":
    main()
