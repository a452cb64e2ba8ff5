"""The losses as slow scalar loops over Python floats, written from the papers' equations."""

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def sign(x):
    return 1.0 if x >= 0 else -1.0


def similar(a, b):
    return any(x and y for x, y in zip(a, b, strict=True))


def quantization(u):
    return sum((x - sign(x)) ** 2 for x in u)


def pairs(n):
    return [(i, j) for i in range(n) for j in range(n) if i != j]


def negative_log_likelihood(theta, s):
    return math.log(1 + math.exp(theta)) - s * theta


def balanced(values_similar, values_unlike):
    """w_ij = S/S1 or S/S0, and the sum divided by S."""
    n = len(values_similar) + len(values_unlike)
    total = 0.0
    if values_similar:
        total += sum(n / len(values_similar) * v for v in values_similar)
    if values_unlike:
        total += sum(n / len(values_unlike) * v for v in values_unlike)
    return total / n


def dpsh(u, y, memory, *, eta):
    """`memory`: (u_j, y_j) of the training set, None where not seen; the batch is written into it already."""
    total = 0.0
    for u_i, y_i in zip(u, y, strict=True):
        for entry in memory:
            u_j, y_j = entry or ([0.0] * len(u_i), [0] * len(y_i))
            total += negative_log_likelihood(dot(u_i, u_j) / 2, similar(y_i, y_j))
        total += eta * quantization(u_i)
    return total / (len(u) * len(memory))


def dsdh(u, y, memory, codes, *, eta):
    total = dpsh(u, y, memory, eta=0.0)
    for u_i, b_i in zip(u, codes, strict=True):
        total += eta * sum((b - x) ** 2 for b, x in zip(b_i, u_i, strict=True)) / (len(u) * len(memory))
    return total


def dhn(u, y, *, weight):
    z = [[math.tanh(x) for x in row] for row in u]
    values = [negative_log_likelihood(dot(z[i], z[j]), similar(y[i], y[j])) for i, j in pairs(len(u))]
    q = sum(math.log(math.cosh(abs(x) - 1)) for row in z for x in row) / len(u)
    return sum(values) / len(values) + weight * q


def dsh(u, y, *, margin, alpha):
    total = 0.0
    for i, j in pairs(len(u)):
        d = sum((a - b) ** 2 for a, b in zip(u[i], u[j], strict=True))
        total += d / 2 if similar(y[i], y[j]) else max(margin - d, 0) / 2
        total += alpha * sum(abs(abs(x) - 1) for x in [*u[i], *u[j]])
    return total / len(pairs(len(u)))


def hashnet(u, y, *, alpha, beta):
    h = [[math.tanh(beta * x) for x in row] for row in u]
    alike, unlike = [], []
    for i, j in pairs(len(u)):
        shared = sum(a and b for a, b in zip(y[i], y[j], strict=True))
        either = sum(a or b for a, b in zip(y[i], y[j], strict=True))
        value = negative_log_likelihood(alpha * dot(h[i], h[j]), shared > 0)
        if shared:
            alike.append(shared / either * value)
        else:
            unlike.append(value)
    return balanced(alike, unlike)


def dch(u, y, *, gamma, weight):
    n_bits = len(u[0])
    h = [[math.tanh(x) for x in row] for row in u]

    def distance(a, b):
        return n_bits / 2 * (1 - dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)))

    alike, unlike = [], []
    for i, j in pairs(len(u)):
        d = distance(h[i], h[j])
        if similar(y[i], y[j]):
            alike.append(math.log(d / gamma) + math.log(1 + gamma / d))
        else:
            unlike.append(math.log(1 + gamma / d))
    q = [math.log(1 + distance([abs(x) for x in row], [1.0] * n_bits) / gamma) for row in h]
    return balanced(alike, unlike) + weight * sum(q) / len(q)


def mihash(u, y, *, n_bins, sharpness):
    n_bits, n = len(u[0]), len(u)
    h = [[2 * sigmoid(sharpness * x) - 1 for x in row] for row in u]

    def entropy(p):
        return -sum(x * math.log2(x) for x in p if x > 0)

    total = 0.0
    for i in range(n):
        distances = {True: [], False: []}
        for j in range(n):
            if j != i:
                distances[similar(y[i], y[j])].append((n_bits - dot(h[i], h[j])) / 2)
        histograms = {}
        for kind, values in distances.items():
            width = n_bits / n_bins
            histograms[kind] = [
                sum(max(0.0, 1 - abs(d - bin_ * width) / width) for d in values) for bin_ in range(n_bins + 1)
            ]
        both = [(a + b) / (n - 1) for a, b in zip(histograms[True], histograms[False], strict=True)]
        information = entropy(both)
        for kind, values in distances.items():
            if values:
                information -= len(values) / (n - 1) * entropy([x / len(values) for x in histograms[kind]])
        total -= information
    return total / n


def dtsh(u, y, *, margin, eta):
    values = []
    for q in range(len(u)):
        for p in range(len(u)):
            for n in range(len(u)):
                if q != p and similar(y[q], y[p]) and not similar(y[q], y[n]):
                    theta = dot(u[q], u[p]) / 2 - dot(u[q], u[n]) / 2 - margin
                    values.append(-(theta - math.log(1 + math.exp(theta))))
    return sum(values) / len(values) + eta * sum(quantization(row) for row in u) / len(u)


def csq(u, y, centers, tie_breaker, *, weight):
    total = 0.0
    for row, labels in zip(u, y, strict=True):
        for k, x in enumerate(row):
            votes = sum(center[k] for center, label in zip(centers, labels, strict=True) if label)
            c = (1 + (math.copysign(1, votes) if votes else tie_breaker[k])) / 2
            h = (math.tanh(x) + 1) / 2
            total -= c * math.log(h) + (1 - c) * math.log(1 - h)
            total += weight * math.log(math.cosh(abs(2 * h - 1) - 1))
    return total / (len(u) * len(u[0]))


def dpn(u, y, centers, *, margin):
    total = 0.0
    for row, labels in zip(u, y, strict=True):
        for center, label in zip(centers, labels, strict=True):
            if label:
                total += sum(max(margin - x * t, 0) for x, t in zip(row, center, strict=True))
    return total / len(u)


def orthohash(u, y, centers, *, scale, margin):
    total = 0.0
    for row, labels in zip(u, y, strict=True):
        cosines = [dot(row, o) / math.sqrt(dot(row, row) * dot(o, o)) for o in centers]
        scores = [scale * (c - margin * label) for c, label in zip(cosines, labels, strict=True)]
        log_sum = math.log(sum(math.exp(s) for s in scores))
        total -= sum(label * (s - log_sum) for s, label in zip(scores, labels, strict=True)) / sum(labels)
    return total / len(u)


def greedyhash(u, y, classifier, *, weight):
    total = 0.0
    for row, labels in zip(u, y, strict=True):
        scores = [dot([sign(x) for x in row], w) for w in classifier]
        total += math.log(sum(math.exp(s) for s in scores)) - scores[labels.index(1)]
        total += weight * sum(abs(abs(x) - 1) ** 3 for x in row) / len(row)
    return total / len(u)


def adsh(u, y, memory, codes, own, *, gamma, balanced):
    """`codes`: rows of V of the training set; `own`: those of the batch; both of -1 and +1 where seen."""
    n_bits = len(u[0])
    kinds = [similar(a, entry[1]) for a in y for entry in memory if entry]
    dissimilar = -sum(kinds) / (len(kinds) - sum(kinds)) if balanced else -1.0
    total = 0.0
    for row, labels, v_i in zip(u, y, own, strict=True):
        h = [math.tanh(x) for x in row]
        for entry, v_j in zip(memory, codes, strict=True):
            if entry:
                s = 1.0 if similar(labels, entry[1]) else dissimilar
                total += (dot(h, v_j) - n_bits * s) ** 2
        total += gamma * sum((v - x) ** 2 for v, x in zip(v_i, h, strict=True))
    return total / (len(u) * len(memory))
