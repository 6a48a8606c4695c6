// What the page does for edgekit: start a runtime, open models, run or time them. Names of models and tensors are data.

let runtime = null;
const models = new Map();

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

function textOf(bytes) {
  let text = '';
  // The arguments of a call are limited in number.
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}

function arraysOf(inputs) {
  return inputs.map(({ dtype, shape, data }) => ({ shape, data: new (runtime.arrayType(dtype))(bytesOf(data).buffer) }));
}

/** The median of a window of latencies. */
function median(values) {
  const sorted = [...values].sort((first, second) => first - second);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Whether the medians of the last two windows of 10 runs differ by at most 5 %, as for every other measurement. */
function isSteady(walls) {
  if (walls.length < 20) return false;
  const [earlier, later] = [median(walls.slice(-20, -10)), median(walls.slice(-10))];
  return Math.abs(earlier - later) <= 0.05 * later;
}

/** The WebGPU adapter as a text, and whether it computes on the CPU. */
async function findAdapter() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return { adapter: null, software: false };
  const { vendor, architecture, description, isFallbackAdapter } = adapter.info;
  const name = [vendor, architecture, description].filter(Boolean).join(' ') || 'unnamed';
  return { adapter: name, software: Boolean(isFallbackAdapter) || /swiftshader|llvmpipe/i.test(name) };
}

const actions = {
  async start({ runtime: name, base, threads, backend }) {
    const { adapter, software } = await findAdapter();
    if (backend === 'webgpu' && !adapter) {
      throw Object.assign(new Error('this browser has no WebGPU adapter'), { kind: 'adapter' });
    }
    const started = performance.now();
    runtime = await import(new URL(`${name}.mjs`, import.meta.url));
    await runtime.load({ base: new URL(base, import.meta.url), threads, backend });
    return { adapter, software, isolated: crossOriginIsolated, load_ms: performance.now() - started };
  },

  async open({ id, url, signature }) {
    const types = signature.inputs.concat(signature.outputs).filter(({ dtype }) => !runtime.arrayType(dtype));
    if (types.length) throw new Error(`unsupported type ${types[0].dtype}`);
    const response = await fetch(new URL(url, import.meta.url));
    const bytes = new Uint8Array(await response.arrayBuffer());
    const started = performance.now();
    models.set(id, await runtime.open(bytes, signature));
    return { load_ms: performance.now() - started };
  },

  async run({ id, inputs }) {
    const outputs = await models.get(id).run(arraysOf(inputs));
    return outputs.map(({ data, shape }) => ({
      shape: shape.map(Number),
      data: textOf(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
    }));
  },

  async measure({ id, inputs, min_duration_s, min_runs, warm_up_max_s }) {
    const call = models.get(id).bind(arraysOf(inputs));
    const walls = [];
    const timed = async () => {
      const started = performance.now();
      await call();
      return performance.now() - started;
    };
    const first = await timed();
    const warmUp = [];
    for (const until = performance.now() + 1000 * warm_up_max_s; !isSteady(warmUp) && warmUp.length < 10000; ) {
      warmUp.push(await timed());
      if (performance.now() >= until) break;
    }
    const until = performance.now() + 1000 * min_duration_s;
    while (walls.length < min_runs || performance.now() < until) walls.push(await timed());
    return { first_ms: first, warm_up_runs: warmUp.length, walls_ms: walls };
  },

  async close({ id }) {
    models.get(id)?.close();
    models.delete(id);
    return null;
  },
};

/** Perform an action; what it throws is an answer, since an exception would lose its type on the way. */
window.perform = async ([action, request]) => {
  try {
    return { answer: await actions[action](request) };
  } catch (error) {
    return { error: String(error?.message ?? error), kind: error?.kind };
  }
};
window.ready = true;
