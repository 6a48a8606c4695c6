// ONNX Runtime Web behind the interface that the pages use: load(), then open(), then run() or bind().

// A type of tensor -> the array that holds it. Float16Array is missing in older browsers: ONNX Runtime then takes bits.
const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: globalThis.Float16Array ?? Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
};

// A model of one operator: the library fetches and compiles its WebAssembly when it opens the first model.
const SMALLEST = 'CAgSADo3ChAKAXgSAXkiCElkZW50aXR5EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ==';

let ort = null;
let provider = 'wasm';

export const arrayType = (dtype) => ARRAYS[dtype];

/** Load the library; `base` is the URL of the folder with its files. */
export async function load({ base, threads, backend }) {
  provider = backend;
  ort = await import(new URL(backend === 'webgpu' ? 'ort.webgpu.min.mjs' : 'ort.wasm.min.mjs', base));
  ort.env.logLevel = 'error';
  ort.env.wasm.wasmPaths = String(base);
  ort.env.wasm.numThreads = threads;
  const smallest = Uint8Array.from(atob(SMALLEST), (character) => character.charCodeAt(0));
  await (await ort.InferenceSession.create(smallest, { executionProviders: [provider] })).release();
}

/** Open a model of these bytes; `signature` lists inputs and outputs as {name, dtype, shape}. */
export async function open(bytes, signature) {
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider] });
  const feed = (arrays) =>
    Object.fromEntries(
      signature.inputs.map(({ name, dtype }, index) => [name, new ort.Tensor(dtype, arrays[index].data, arrays[index].shape)]),
    );
  return {
    /** Return the outputs for arrays in the order of the signature, each {data, shape}. */
    async run(arrays) {
      const results = await session.run(feed(arrays));
      return signature.outputs.map(({ name }) => ({ data: results[name].data, shape: [...results[name].dims] }));
    },
    /** Return a function that runs one inference on fixed inputs. */
    bind(arrays) {
      const inputs = feed(arrays);
      return () => session.run(inputs);
    },
    close: () => session.release(),
  };
}
