// Writes small programs by hand, as the tracer would. Executes nothing.

import { readForward, readProgram, sizeOf, type Forward, type Program, type ValueType } from "../src/program";

/** Collects values and equations; every method returns the index of what it wrote. */
export class ProgramBuilder {
  readonly #values: ValueType[] = [];
  readonly #parameters: number[] = [];
  readonly #batch: number[] = [];
  readonly #constants: { value: number; data: number | number[] }[] = [];
  readonly #equations: object[] = [];

  value(shape: number[], dtype: ValueType["dtype"] = "float32"): number {
    return this.#values.push({ shape, dtype }) - 1;
  }

  parameter(shape: number[]): number {
    return this.#parameters[this.#parameters.push(this.value(shape)) - 1]!;
  }

  batch(shape: number[], dtype: ValueType["dtype"] = "float32"): number {
    return this.#batch[this.#batch.push(this.value(shape, dtype)) - 1]!;
  }

  constant(data: number | number[], shape: number[] = [], dtype: ValueType["dtype"] = "float32"): number {
    const value = this.value(shape, dtype);
    this.#constants.push({ value, data });
    return value;
  }

  /** Adds an equation whose output has the shape and dtype given. */
  equation(primitive: string, inputs: number[], shape: number[], options = {}, dtype: ValueType["dtype"] = "float32"): number {
    const output = this.value(shape, dtype);
    this.#equations.push({ primitive, inputs, outputs: [output], options });
    return output;
  }

  build(loss: number, gradients: number[]): Program {
    return readProgram(this.#written({ loss, gradients }));
  }

  forward(outputs: Record<string, number>): Forward {
    return readForward(this.#written({ outputs: Object.entries(outputs).map(([name, value]) => ({ name, value })) }));
  }

  #written(results: object): unknown {
    return JSON.parse(JSON.stringify({
      format: 1, values: this.#values, parameters: this.#parameters, batch: this.#batch,
      constants: this.#constants, equations: this.#equations, ...results,
    }));
  }
}

/** The equations of JAX's value_and_grad of a ReLU network with softmax cross-entropy: sizes such as [784, 100, 10]. */
export function network(rows: number, [inputs, hidden, classes]: [number, number, number]): Program {
  const b = new ProgramBuilder();
  const [w1, b1, w2, b2] = [b.parameter([inputs, hidden]), b.parameter([hidden]), b.parameter([hidden, classes]), b.parameter([classes])];
  const [image, label] = [b.batch([rows, inputs], "uint8"), b.batch([rows], "uint8")];
  const [zero, scale, mean] = [b.constant(0), b.constant(255), b.constant(1 / rows)];
  const x = b.equation("div", [b.equation("convert_element_type", [image], [rows, inputs]), scale], [rows, inputs]);
  const dot = (y: number, z: number, shape: number[], contract: number[][]): number =>
    b.equation("dot_general", [y, z], shape, { contract, batch: [[], []] });
  const spread = (y: number, shape: number[], dimensions: number[]): number =>
    b.equation("broadcast_in_dim", [y], shape, { shape, broadcast_dimensions: dimensions });
  const z1 = b.equation("add", [dot(x, w1, [rows, hidden], [[1], [0]]), spread(b1, [rows, hidden], [1])], [rows, hidden]);
  const h = b.equation("max", [z1, zero], [rows, hidden]);
  const z2 = b.equation("add", [dot(h, w2, [rows, classes], [[1], [0]]), spread(b2, [rows, classes], [1])], [rows, classes]);
  const top = spread(b.equation("reduce_max", [z2], [rows], { axes: [1] }), [rows, classes], [0]);
  const shifted = b.equation("sub", [z2, top], [rows, classes]);
  const e = b.equation("exp", [shifted], [rows, classes]);
  const total = b.equation("reduce_sum", [e], [rows], { axes: [1] });
  const logits = b.equation("sub", [shifted, spread(b.equation("log", [total], [rows]), [rows, classes], [0])], [rows, classes]);
  const wide = b.equation("convert_element_type", [label], [rows], { dtype: "int32" }, "int32");
  const classesOf = b.equation("iota", [], [rows, classes], { shape: [rows, classes], dtype: "int32", dimension: 1 }, "int32");
  const isLabel = b.equation("eq", [spread2(b, wide, rows, classes), classesOf], [rows, classes], {}, "bool");
  const oneHot = b.equation("convert_element_type", [isLabel], [rows, classes], { dtype: "float32" });
  const picked = b.equation("reduce_sum", [b.equation("mul", [logits, oneHot], [rows, classes])], [], { axes: [0, 1] });
  const loss = b.equation("neg", [b.equation("mul", [picked, mean], [])], []);
  const softmax = b.equation("div", [e, spread(total, [rows, classes], [0])], [rows, classes]);
  const dz2 = b.equation("mul", [b.equation("sub", [softmax, oneHot], [rows, classes]), mean], [rows, classes]);
  const db2 = b.equation("reduce_sum", [dz2], [classes], { axes: [0] });
  // JAX writes dW as transpose(dot(dz, h)): the weights' gradient comes out with its axes swapped.
  const dw2 = b.equation("transpose", [dot(dz2, h, [classes, hidden], [[0], [0]])], [hidden, classes], { permutation: [1, 0] });
  const dh = dot(dz2, w2, [rows, hidden], [[1], [1]]);
  const open = b.equation("gt", [z1, zero], [rows, hidden], {}, "bool");
  const dz1 = b.equation("select_n", [open, spread(zero, [rows, hidden], []), dh], [rows, hidden]);
  const db1 = b.equation("reduce_sum", [dz1], [hidden], { axes: [0] });
  const dw1 = b.equation("transpose", [dot(dz1, x, [hidden, inputs], [[0], [0]])], [inputs, hidden], { permutation: [1, 0] });
  return b.build(loss, [dw1, db1, dw2, db2]);
}

function spread2(b: ProgramBuilder, y: number, rows: number, classes: number): number {
  return b.equation("broadcast_in_dim", [y], [rows, classes], { shape: [rows, classes], broadcast_dimensions: [0] }, "int32");
}

/** Parameters of a program: small, different, the same every time. */
export function someParameters(program: Program): Float32Array<ArrayBuffer> {
  const count = program.parameters.reduce((sum, value) => sum + sizeOf(program.values[value]!.shape), 0);
  return Float32Array.from({ length: count }, (_, i) => 0.1 * Math.sin(1.7 * i));
}
