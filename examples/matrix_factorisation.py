"""Recommendation by matrix factorisation: an embedding for each user and each film; their product is the rating.

crowdlearn up examples/matrix_factorisation.py --browsers 2

The ratings are made here, of hidden tastes and noise, so that it is known how well anybody could predict them: no
method's root mean square error gets below NOISE, and predicting the mean gets SPREAD.
"""

import jax.numpy as jnp
import numpy as np

from crowdlearn import Adagrad, Data, Job, Normal

USERS, FILMS, TASTES, RATINGS = 600, 400, 4, 40_000
NOISE = 0.3
"""Standard deviation of what no user's or film's taste explains: the least root mean square error there is."""


def make_ratings(rng):
    user, film = rng.integers(0, USERS, RATINGS), rng.integers(0, FILMS, RATINGS)
    liking, quality = rng.normal(0, 0.3, USERS), rng.normal(0, 0.4, FILMS)
    taste, content = rng.normal(0, 0.6, (USERS, TASTES)), rng.normal(0, 0.6, (FILMS, TASTES))
    explained = 3.5 + liking[user] + quality[film] + np.sum(taste[user] * content[film], axis=1)
    rating = explained + rng.normal(0, NOISE, RATINGS)
    return {"user": user.astype(np.uint16), "film": film.astype(np.uint16), "rating": rating.astype(np.float32)}


ratings = make_ratings(np.random.default_rng(0))
train = {name: array[:36_000] for name, array in ratings.items()}
held_out = {name: array[36_000:] for name, array in ratings.items()}
SPREAD = float(np.std(held_out["rating"]))


def predict(params, batch):
    user, film = params["users"][batch["user"]], params["films"][batch["film"]]
    biases = params["liking"][batch["user"]] + params["quality"][batch["film"]]
    return params["mean"] + biases + jnp.sum(user * film, axis=1)


def loss(params, batch):
    return jnp.mean((predict(params, batch) - batch["rating"]) ** 2)


job = Job(
    name="matrix-factorisation",
    params={
        "users": Normal((USERS, TASTES), std=0.3),
        "films": Normal((FILMS, TASTES), std=0.3),
        "liking": np.zeros(USERS),
        "quality": np.zeros(FILMS),
        "mean": np.array(train["rating"].mean()),
    },
    loss=loss,
    data=Data(train, held_out),
    batch_size=200,
    epochs=20,
    until=f"loss <= {0.345**2:.3f}",  # a root mean square error of 0.345
    optimizer=Adagrad(learning_rate=0.4, initial_accumulator=0.001),
)
