// The network of the first CrowdLearn, 784-100-10, as an ES module: docs/modules.md.

function logits(params, { image }, { np, nn }) {
  const hidden = nn.relu(np.dot(image, params.W1).add(params.b1));
  return np.dot(hidden, params.W2).add(params.b2);
}

// Around zero: without that, gradients which are a little stale make the loss swing.
export function preprocess({ image, label }, { np }) {
  return { image: image.astype(np.float32).sub(33).div(255), label };
}

export function loss(params, batch, context) {
  const { np, nn } = context;
  const wanted = nn.oneHot(batch.label, 10);
  return np.mean(np.sum(nn.logSoftmax(logits(params, batch, context)).mul(wanted), 1)).neg();
}

export function metrics(params, batch, context) {
  const { np } = context;
  const isRight = np.argmax(logits(params, batch, context), 1).equal(batch.label);
  return { accuracy: np.mean(isRight.astype(np.float32)) };
}
