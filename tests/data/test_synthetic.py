"""The affect processes: their closed forms against brute force and Monte Carlo."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal, norm
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPClassifier

from imder_lib import UserError, availability, bayes_prediction, exact_posterior, load_data, patterns
from imder_lib.data.posterior import exact_draws
from imder_lib.data.process import correlation
from imder_lib.data.synthetic import affect_process
from imder_runs.describe import describe

SMALL = {"text": 6, "audio": 3, "vision": 4}
MIDDLE = {"text": 16, "audio": 5, "vision": 20}


def joint(process, style, names):
    """Brute force: mean and covariance of the stacked features (T, D) of some modalities, and the map from z."""
    maps = np.concatenate([np.kron(np.eye(process.steps), process.loadings[m][style]) for m in names])
    mean = np.concatenate([np.tile(process.tones[m][style], process.steps) for m in names])
    size = [process.steps * process.loadings[m].shape[1] for m in names]
    noise = np.repeat([process.noise[m] ** 2 for m in names], size)
    Z = np.kron(correlation(process.steps), np.eye(4))
    return mean, maps @ Z @ maps.T + np.diag(noise), maps @ Z


def flat(features, names):
    return np.concatenate([features[m].reshape(len(features[m]), -1) for m in names], axis=1).astype(float)


def brute_weights(process, features, given):
    log = [multivariate_normal(*joint(process, r, given)[:2]).logpdf(flat(features, given)) for r in range(3)]
    return softmax(np.array(log).T + np.log(process.prior), axis=1)


def style_mean(posterior, r):
    """(N, T, D): A_r mu_r + b_r."""
    mu = posterior.affect.means[:, r]
    return mu.reshape(len(mu), -1, 4) @ posterior.loadings[r].T + posterior.tones[r]


@pytest.mark.parametrize("given", [("audio",), ("audio", "vision"), ("vision",)])
def test_posterior_is_the_mixture_of_the_joint_gaussians(given):
    process = affect_process(SMALL, steps=5)
    features, *_ = process.sample(3, np.random.default_rng(1))
    n = 5 * SMALL["text"]
    posterior = exact_posterior(process, features, "text", given)
    weights = brute_weights(process, features, given)
    np.testing.assert_allclose(posterior.affect.weights, weights, atol=1e-6)
    np.testing.assert_allclose(process.style_posterior(features, given), weights, atol=1e-6)
    means = []
    for r in range(3):
        mean, C, _ = joint(process, r, ["text", *given])
        gain = C[:n, n:] @ np.linalg.inv(C[n:, n:])
        means.append(mean[:n] + (flat(features, given) - mean[n:]) @ gain.T)
        np.testing.assert_allclose(style_mean(posterior, r).reshape(3, -1), means[r], atol=1e-6)
    mean = np.einsum("nr,rnk->nk", weights, np.array(means))
    np.testing.assert_allclose(posterior.mean.reshape(3, -1), mean, atol=1e-6)


def test_text_is_independent_of_the_style():
    process = affect_process({"text": 768, "audio": 3, "vision": 4}, steps=2)
    features, *_ = process.sample(4, np.random.default_rng(1))
    np.testing.assert_allclose(process.style_posterior(features, ["text"]), np.tile(process.prior, (4, 1)), atol=1e-9)
    shares = process.style_posterior(features, process.loadings)
    np.testing.assert_allclose(shares, brute_weights(process, features, SMALL), atol=1e-5)


def test_bayes_predictions_against_the_mixture():
    process = affect_process(SMALL, steps=4)
    features, *_ = process.sample(5, np.random.default_rng(1))
    given = ["audio", "vision"]
    available = np.tile([m in given for m in process.loadings], (5, 1))
    weights, means, std = brute_weights(process, features, given), [], []
    Z = np.kron(correlation(process.steps), np.eye(4))
    for r in range(3):
        mean, C, to_z = joint(process, r, given)
        w, gain = process.label_weights[r], to_z.T @ np.linalg.inv(C)
        means.append((flat(features, given) - mean) @ gain.T @ w)
        std.append(np.sqrt(w @ (Z - gain @ to_z) @ w + 1.5**2 * 0.13))
    means, std = np.array(means).T, np.array(std)
    cdf = lambda x: (weights * norm.cdf((np.reshape(x, (-1, 1)) - means) / std)).sum(1)  # noqa: E731
    np.testing.assert_allclose(cdf(bayes_prediction(process, features, available)), 0.5, atol=1e-6)
    np.testing.assert_allclose(bayes_prediction(process, features, available, "positive"), 1 - cdf(0), atol=1e-6)
    squared = bayes_prediction(process, features, available, loss="squared")
    np.testing.assert_allclose(squared, (weights * means).sum(1), atol=1e-6)
    with pytest.raises(UserError, match="absolute"):
        bayes_prediction(process, features, available, loss="absolute")


def test_draws_have_the_moments_of_the_posterior():
    process = affect_process(SMALL, steps=3)
    features, *_ = process.sample(2, np.random.default_rng(1))
    posterior = exact_posterior(process, features, "vision", ["audio"])
    rng = np.random.default_rng(0)
    draws = posterior.sample(*posterior.affect.sample(20000, rng), rng)
    joint_draws, styles = exact_draws(process, features, ["audio"], 20000, np.random.default_rng(0))
    for x in (draws, joint_draws["vision"]):
        np.testing.assert_allclose(x.mean(0), posterior.mean, atol=0.03)
    np.testing.assert_allclose((styles[..., None] == range(3)).mean(0), posterior.affect.weights, atol=0.015)
    want = np.zeros((12, 12))  # the covariance over all steps and channels of the first sample
    for r, w in enumerate(posterior.affect.weights[0]):
        _, C, _ = joint(process, r, ["vision", "audio"])
        off = (style_mean(posterior, r)[0] - posterior.mean[0]).reshape(12, 1)
        want += w * (C[:12, :12] - C[:12, 12:] @ np.linalg.solve(C[12:, 12:], C[12:, :12]) + off * off.T)
    np.testing.assert_allclose(np.cov(draws[:, 0].reshape(-1, 12).T), want, atol=0.03 * want.max())


def test_joint_draws_share_style_and_affect():
    process = affect_process(MIDDLE)
    features, *_ = process.sample(200, np.random.default_rng(1))
    drawn, styles = exact_draws(process, features, ["text"], 5, np.random.default_rng(0))
    complete = {m: np.concatenate(list(drawn[m])) if m in drawn else np.tile(x, (5, 1, 1)) for m, x in features.items()}
    shares = process.style_posterior(complete, process.loadings)[np.arange(1000), styles.ravel()]
    assert shares.mean() > 0.95
    apart = complete | {"vision": np.roll(complete["vision"], 200, axis=0)}  # modalities drawn independently
    assert process.style_posterior(apart, process.loadings)[np.arange(1000), styles.ravel()].mean() < 0.6
    z, _ = process.affect_posterior(features, ["text"]).sample(2, np.random.default_rng(0))
    assert z.shape == (2, 200, 16 * 4)


# .87 / .85 / .66 / .63 are the targets; at 8000 samples one standard error is at most .006
@pytest.mark.parametrize(
    ("pattern", "acc2"), [("text+audio+vision", 0.87), ("text", 0.85), ("vision", 0.66), ("audio", 0.63)]
)
def test_bayes_limit_of_gaussian_data_is_near_the_published_results(pattern, acc2):
    data = load_data("gaussian", sizes={"train": 1, "valid": 1, "test": 8000}, widths=MIDDLE)
    y = data.test.labels
    available = availability("fixed", len(y), data.modalities, pattern).numpy()
    prediction = bayes_prediction(data.process, data.test.features, available)
    assert ((prediction > 0) == (y > 0)).mean() == pytest.approx(acc2, abs=0.015)


def test_gaussian_data_are_unchanged():
    data, digest = (
        load_data("gaussian", sizes={"train": 5, "valid": 3, "test": 4}, widths=SMALL, steps=4),
        hashlib.sha256(),
    )
    for split in data.splits.values():
        for x in (*split.features.values(), split.labels):
            digest.update(x.tobytes())
    assert digest.hexdigest()[:16] == "5771a5b2f06e74ec"


@pytest.fixture(scope="module")
def styled():
    return load_data("synthetic", sizes={"train": 4000, "valid": 1, "test": 4000}, widths=MIDDLE)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("name", ["gaussian", "synthetic"])
def test_no_trained_prediction_beats_bayes(name, styled):
    small = {"sizes": {"train": 4000, "valid": 1, "test": 4000}, "widths": SMALL, "steps": 6}
    data = styled if name == "synthetic" else load_data(name, **small)
    y, target = data.test.labels, data.train.labels > 0
    for pattern in patterns(data.modalities):
        train, test = (np.concatenate([s.features[m].mean(1) for m in pattern], 1) for s in (data.train, data.test))
        available = availability("fixed", 4000, data.modalities, pattern).numpy()
        best = bayes_prediction(data.process, data.test.features, available)
        linear = np.clip(RidgeCV().fit(train, data.train.labels).predict(test), -3, 3)
        assert np.abs(best - y).mean() <= np.abs(linear - y).mean() + 0.01
        acc2 = ((best > 0) == (y > 0)).mean()
        assert acc2 >= ((linear > 0) == (y > 0)).mean() - 0.01
        if name == "synthetic":
            network = MLPClassifier((32,), alpha=1, max_iter=60, early_stopping=True, random_state=0)
            assert acc2 >= (network.fit(train, target).predict(test) == (y > 0)).mean() - 0.01


def test_predictions_from_the_conditional_mean_are_worse_than_from_exact_draws(styled):
    test = styled.test.first(2000)
    process, x, y = styled.process, test.features, test.labels > 0
    rng, lost = np.random.default_rng(0), 0
    right = lambda chance: ((chance > 0.5) == y).mean()  # noqa: E731
    complete = np.ones((len(y), 3), dtype=bool)
    for pattern in patterns(styled.modalities, complete=False):
        available = availability("fixed", len(y), styled.modalities, pattern).numpy()
        best = right(bayes_prediction(process, x, available, "positive"))
        missing = [m for m in styled.modalities if m not in pattern]
        filled = x | {m: exact_posterior(process, x, m, pattern).mean for m in missing}
        lost += best - right(bayes_prediction(process, filled, complete, "positive")) >= 0.05
        drawn, _ = exact_draws(process, x, pattern, 16, rng)
        each = [x | {m: v[k] for m, v in drawn.items()} for k in range(16)]
        chance = np.mean([bayes_prediction(process, one, complete, "positive") for one in each], axis=0)
        assert best - right(chance) < 0.03
    assert lost >= 3


def test_default_shapes():
    sizes = {"train": 2, "valid": 2, "test": 2}
    for name, steps in (("synthetic", 16), ("gaussian", 50)):
        data = load_data(name, sizes=sizes)
        assert data.widths == {"text": 768, "audio": 5, "vision": 20}
        assert (data.name, data.steps, data.train.features["text"].shape) == (name, steps, (2, steps, 768))
        assert "synthetic: drawn" in describe(data)
        assert ("ironic 0.2" in describe(data)) == (name == "synthetic")
    process = affect_process()
    _, _, _, styles = affect_process(SMALL, steps=1).sample(20000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(styles) / 20000, process.prior, atol=0.02)
    for m, A in process.loadings.items():  # features have variance 1, and the tone is orthogonal to the loadings
        D = A.shape[1]
        within, tone = np.mean((A**2).sum((1, 2))) / D + process.noise[m] ** 2, process.tones[m]
        assert within + process.prior @ ((tone - process.prior @ tone) ** 2).mean(1) == pytest.approx(1)
        assert np.abs(np.einsum("rd,rdk->rk", tone, A)).max() < 1e-9


def test_same_seed_same_data_other_seed_other_data():
    kw = {"sizes": {"train": 3, "valid": 1, "test": 1}, "widths": SMALL}
    a, b, c = (load_data("synthetic", seed=s, **kw) for s in (0, 0, 1))
    assert np.array_equal(a.train.features["text"], b.train.features["text"])
    assert not np.array_equal(a.train.features["text"], c.train.features["text"])
    assert a.sha256 == b.sha256 != c.sha256


def test_bad_arguments_raise():
    process = affect_process(SMALL, steps=3)
    features, *_ = process.sample(2, np.random.default_rng(1))
    for given in ((), ("smell",), tuple(SMALL)):
        with pytest.raises(UserError, match="missing modalities"):
            exact_draws(process, features, given, 1, np.random.default_rng(0))
    with pytest.raises(UserError, match="unknown process"):
        affect_process(name="magic")


def test_a_data_set_made_of_the_splits_of_another_takes_nothing_from_it():
    data = load_data("gaussian", sizes={"train": 4, "valid": 2, "test": 2}, widths={"a": 3, "b": 2}, steps=3)
    other = replace(data, splits=data.splits | {"train": data.test})
    assert {split.data is data for split in (data.train, data.valid, data.test)} == {True}
    assert {split.data is other for split in (other.train, other.valid, other.test)} == {True}
    assert other.train.labels is data.test.labels  # no copy
