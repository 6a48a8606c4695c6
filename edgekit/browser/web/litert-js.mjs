// LiteRT.js behind the interface that the pages use: load(), then open(), then run() or bind().

// The types of inputs and outputs that LiteRT.js knows.
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

let litert = null;
let options = {};

export const arrayType = (dtype) => ARRAYS[dtype];

/** Load the library; `base` is the URL of the folder with its files. */
export async function load({ base, threads, backend }) {
  litert = await import(new URL('index.js', base));
  await litert.loadLiteRt(new URL('wasm/', base).href, {
    threads: backend === 'wasm' && threads > 1,
    jspi: backend === 'webgpu' && 'Suspending' in WebAssembly,
  });
  options = { accelerator: backend, cpuOptions: { numThreads: threads } };
}

/** Open a model of these bytes; `signature` lists inputs and outputs as {name, dtype, shape}. */
export async function open(bytes, signature) {
  const model = await litert.loadAndCompile(bytes, options);
  const names = (details) => new Set(details.map((detail) => detail.name));
  const [own, outputs] = [names(model.getInputDetails()), names(model.getOutputDetails())];
  if (!signature.inputs.every(({ name }) => own.has(name)) || !signature.outputs.every(({ name }) => outputs.has(name))) {
    throw new Error(`the file's tensors are named ${[...own, ...outputs].join(', ')}`);
  }
  const feed = (arrays) =>
    Object.fromEntries(
      signature.inputs.map(({ name }, index) => [name, new litert.Tensor(arrays[index].data, arrays[index].shape)]),
    );
  const free = (tensors) => Object.values(tensors).forEach((tensor) => tensor.delete());
  return {
    /** Return the outputs for arrays in the order of the signature, each {data, shape}. */
    async run(arrays) {
      const inputs = feed(arrays);
      const results = await model.run(inputs);
      const found = [];
      for (const { name } of signature.outputs) {
        // The tensor's memory is freed below.
        const data = (await results[name].data()).slice();
        found.push({ data, shape: [...results[name].type.layout.dimensions] });
      }
      free(results);
      free(inputs);
      return found;
    },
    /** Return a function that runs one inference on fixed inputs. */
    bind(arrays) {
      const inputs = feed(arrays);
      return async () => {
        const results = await model.run(inputs);
        if (options.accelerator === 'webgpu') await Promise.all(Object.values(results).map((tensor) => tensor.data()));
        free(results);
      };
    },
    close: () => model.delete(),
  };
}
