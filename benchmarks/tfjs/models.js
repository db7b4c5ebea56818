// The models of benchmarks/browser.py in TensorFlow.js: one gradient step, timed. Bundled for the browser by that module.

import "@tensorflow/tfjs-backend-webgl";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/register_all_gradients.js";

setWasmPaths("/tfjs/");

const softmaxLoss = (logits, labels) =>
  tf.neg(tf.mean(tf.sum(tf.mul(tf.logSoftmax(logits), tf.oneHot(labels, 10)), 1)));

const convolved = (x, kernel, bias) =>
  tf.relu(tf.add(tf.maxPool(tf.conv2d(x, kernel, 1, "valid"), 2, 2, "valid"), bias));

/** Parameters in the order of their names. */
const MODELS = {
  mlp: (images, labels) => (W1, W2, b1, b2) =>
    softmaxLoss(tf.add(tf.matMul(tf.relu(tf.add(tf.matMul(images, W1), b1)), W2), b2), labels),
  cnn: (images, labels) => (K1, K2, W3, W4, b1, b2, b3, b4) => {
    const pictures = convolved(convolved(tf.reshape(images, [-1, 28, 28, 1]), K1, b1), K2, b2);
    const features = tf.reshape(pictures, [images.shape[0], -1]);
    return softmaxLoss(tf.add(tf.matMul(tf.relu(tf.add(tf.matMul(features, W3), b3)), W4), b4), labels);
  },
};

/** As a replica does: takes new parameters and rows as numbers, and gives loss and gradients back as numbers. */
async function step(model, parameters, image, label) {
  const [loss, gradients] = tf.tidy(() => {
    const images = tf.tensor(image.data, image.shape);
    const arrays = parameters.map(({ data, shape }) => tf.tensor(data, shape));
    const { value, grads } = tf.valueAndGrads(MODELS[model](images, tf.tensor1d(label, "int32")))(arrays);
    return [value, grads];
  });
  const [value] = await Promise.all([loss, ...gradients].map((array) => array.data()));
  tf.dispose([loss, gradients]);
  return value[0];
}

/** The loss, and the milliseconds of `steps` steps after the first. */
export async function run({ model, backend, parameters, image, label, steps }) {
  await tf.setBackend(backend);
  await tf.ready();
  const held = ({ data, shape }) => ({ data: Float32Array.from(data), shape });
  const inputs = [parameters.map(held), held(image), Int32Array.from(label)];
  const loss = await step(model, ...inputs);
  const milliseconds = [];
  for (let i = 0; i < steps; i++) {
    const started = performance.now();
    await step(model, ...inputs);
    milliseconds.push(performance.now() - started);
  }
  return { loss, milliseconds };
}
