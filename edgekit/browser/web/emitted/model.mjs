// load() and predict(): the model of this folder in a web page. model.d.mts has the types.

let loading = null;

const here = (path) => new URL(path, import.meta.url);

async function fetched(path) {
  const response = await fetch(here(path));
  if (!response.ok) throw new Error(`${path}: the server answers ${response.status} ${response.statusText}`);
  return response;
}

async function loadOnce({ threads = 1 } = {}) {
  if (threads > 1 && !crossOriginIsolated) {
    throw new Error('threads need a page that is served with Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy');
  }
  const description = await (await fetched('model.json')).json();
  const runtime = await import(here(`runtime/${description.runtime}.mjs`));
  const bytes = fetched(description.file).then((response) => response.arrayBuffer());
  await runtime.load({ base: here(`runtime/${description.runtime}/`), threads, backend: 'wasm' });
  const session = await runtime.open(new Uint8Array(await bytes), description);
  return { description, runtime, session };
}

/** Fetch the runtime and the model. Later calls return at once. */
export async function load(options) {
  loading ??= loadOnce(options).catch((error) => {
    loading = null;
    throw error;
  });
  return (await loading).description;
}

/** The shape of a call: the one that is given, or that of the model, with one unknown dimension taken from the length. */
function shapeOf(spec, length, given) {
  const shape = given ?? spec.shape;
  const unknown = shape.filter((size) => typeof size !== 'number');
  const known = shape.reduce((product, size) => (typeof size === 'number' ? product * size : product), 1);
  if (unknown.length === 1 && length > 0 && length % known === 0) {
    return shape.map((size) => (typeof size === 'number' ? size : length / known));
  }
  if (unknown.length || known !== length) {
    throw new Error(`${spec.name}: ${length} values do not fit the shape ${shape.join('x') || 'of a scalar'}`);
  }
  return shape;
}

function toTensor(spec, runtime, input) {
  const values = input.data ?? input;
  const shape = shapeOf(spec, values.length, input.shape);
  const Values = runtime.arrayType(spec.dtype);
  const { quantization } = spec;
  if (!quantization) return { data: values instanceof Values ? values : Values.from(values), shape };
  const [lowest, highest] = spec.limits;
  const integer = (value) => Math.round(value / quantization.scale[0]) + quantization.zero_point[0];
  return { data: Values.from(values, (value) => Math.min(highest, Math.max(lowest, integer(value)))), shape };
}

function fromTensor(spec, { data, shape }) {
  const { quantization } = spec;
  if (!quantization) return { data, shape };
  return { data: Float32Array.from(data, (value) => (value - quantization.zero_point[0]) * quantization.scale[0]), shape };
}

/** Run one inference on real values by input name; return {data, shape} by output name. */
export async function predict(inputs) {
  await load();
  const { description, runtime, session } = await loading;
  const known = new Set(description.inputs.map(({ name }) => name));
  const missing = description.inputs.filter(({ name }) => !Object.hasOwn(inputs, name)).map(({ name }) => name);
  const unknown = Object.keys(inputs).filter((name) => !known.has(name));
  if (missing.length || unknown.length) {
    throw new Error(`the model takes the inputs ${[...known].join(', ')}; it was given ${Object.keys(inputs).join(', ')}`);
  }
  const outputs = await session.run(description.inputs.map((spec) => toTensor(spec, runtime, inputs[spec.name])));
  return Object.fromEntries(description.outputs.map((spec, index) => [spec.name, fromTensor(spec, outputs[index])]));
}
