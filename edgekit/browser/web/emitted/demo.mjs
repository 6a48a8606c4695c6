// The demonstration: an input that a person can change, and what the model makes of it. Names are text, never markup.
import { load, predict } from './model.mjs';

const find = (id) => document.getElementById(id);

/** Create an element with a class and a text or children. */
function element(tag, className, content = '') {
  const created = document.createElement(tag);
  if (className) created.className = className;
  created.append(...(Array.isArray(content) ? content : [content]));
  return created;
}

/** A value as a short text. */
function text(value) {
  if (typeof value === 'bigint' || Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5 ? String(+value.toPrecision(4)) : value.toExponential(2);
}

function tell(message, kind = '') {
  find('status').className = kind;
  find('status').textContent = message;
}

/** An image input: shown on a canvas, where one channel can be drawn on; a file can be chosen or dropped. */
function pictureInput(spec, image) {
  const { height, width, channels, planar, range } = image;
  const canvas = element('canvas', '');
  Object.assign(canvas, { width, height });
  canvas.setAttribute('aria-label', spec.name);
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const file = element('input', '');
  Object.assign(file, { type: 'file', accept: 'image/*' });
  file.setAttribute('aria-label', 'Choose an image');
  const drawable = channels === 1 && width <= 96;
  const hints = [drawable ? 'Draw with the pointer, or choose or drop an image.' : 'Choose or drop an image.', `${width} x ${height} pixels`];
  if (image.normalisation) hints.push(image.normalisation);
  const view = element('div', 'picture', [canvas, file, ...hints.map((hint) => element('p', 'hint', hint))]);
  const place = (pixel, channel) => (planar ? channel * width * height + pixel : pixel * channels + channel);

  // Values that pixels cannot hold exactly, such as those of a sample, are kept until somebody changes the picture.
  let exact = null;

  function clear() {
    pen.fillStyle = '#000';
    pen.fillRect(0, 0, width, height);
    exact = null;
  }

  function show(values) {
    const pixels = pen.createImageData(width, height);
    const [low, high] = range;
    for (let pixel = 0; pixel < width * height; pixel += 1) {
      for (let channel = 0; channel < 3; channel += 1) {
        const value = values[place(pixel, Math.min(channel, channels - 1))];
        pixels.data[4 * pixel + channel] = Math.round((255 * (value - low)) / (high - low));
      }
      pixels.data[4 * pixel + 3] = 255;
    }
    pen.putImageData(pixels, 0, 0);
    exact = Float32Array.from(values);
  }

  function read() {
    if (exact) return exact;
    const pixels = pen.getImageData(0, 0, width, height).data;
    const values = new Float32Array(width * height * channels);
    const [low, high] = range;
    const scaled = (level) => low + ((high - low) * level) / 255;
    for (let pixel = 0; pixel < width * height; pixel += 1) {
      const [red, green, blue] = pixels.subarray(4 * pixel, 4 * pixel + 3);
      const levels = channels === 1 ? [0.299 * red + 0.587 * green + 0.114 * blue] : [red, green, blue];
      for (let channel = 0; channel < channels; channel += 1) values[place(pixel, channel)] = scaled(levels[channel] ?? 255);
    }
    return values;
  }

  async function open(chosen) {
    try {
      const bitmap = await createImageBitmap(chosen);
      const side = Math.min(bitmap.width / width, bitmap.height / height);
      clear();
      // The largest part of the image with the input's proportions, from its middle.
      pen.drawImage(bitmap, (bitmap.width - side * width) / 2, (bitmap.height - side * height) / 2, side * width, side * height, 0, 0, width, height);
      await run();
    } catch {
      tell('The browser cannot read this file as an image.', 'bad');
    }
  }

  file.addEventListener('change', () => file.files[0] && open(file.files[0]));
  view.addEventListener('dragover', (event) => {
    event.preventDefault();
    canvas.classList.add('dropping');
  });
  view.addEventListener('dragleave', () => canvas.classList.remove('dropping'));
  view.addEventListener('drop', (event) => {
    event.preventDefault();
    canvas.classList.remove('dropping');
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
  if (drawable) {
    let last = null;
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
    };
    const stroke = (event) => {
      const next = point(event);
      Object.assign(pen, { strokeStyle: '#fff', lineCap: 'round', lineJoin: 'round', lineWidth: width / 12 });
      pen.beginPath();
      pen.moveTo(...(last ?? next));
      pen.lineTo(...next);
      pen.stroke();
      exact = null;
      last = next;
    };
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      stroke(event);
    });
    canvas.addEventListener('pointermove', (event) => last && stroke(event));
    canvas.addEventListener('pointerup', () => {
      last = null;
      run();
    });
    find('clear').hidden = false;
    find('clear').addEventListener('click', () => {
      clear();
      find('outputs').replaceChildren();
      tell('Draw something, then run the model.');
    });
  } else {
    canvas.style.cursor = 'default';
  }
  clear();
  return { view, show, read };
}

/** An input of numbers, as text. */
function numberInput(spec) {
  const area = element('textarea', '');
  area.spellcheck = false;
  area.setAttribute('aria-label', spec.name);
  const shape = spec.shape.join('x') || 'scalar';
  const view = element('div', 'numbers', [element('h3', '', spec.name), element('p', 'hint', `${shape} ${spec.dtype}`), area]);
  const number = (word) => {
    const value = spec.dtype.endsWith('int64') ? BigInt(word) : Number(word);
    if (Number.isNaN(value)) throw new Error(`${spec.name}: '${word}' is no number`);
    return value;
  };
  return {
    view,
    show: (values) => (area.value = Array.from(values).join(', ')),
    read: () => area.value.split(/[\s,;]+/).filter(Boolean).map(number),
  };
}

/** The highest values of a vector of class scores, with bars. */
function bars(values, classes) {
  const order = Array.from(values.keys()).sort((first, second) => values[second] - values[first]).slice(0, 5);
  const [low, high] = [Math.min(0, ...values), Math.max(...values)];
  const list = element('dl', 'bars');
  order.forEach((index, rank) => {
    const bar = element('div', 'bar');
    bar.hidden = values[index] === low;
    bar.style.width = `${(100 * (values[index] - low)) / (high - low || 1)}%`;
    const best = rank ? '' : ' best';
    list.append(
      element('dt', best, classes[index] ?? `class ${index}`),
      element('dd', '', [element('div', 'track', [bar]), element('span', `value${best}`, text(values[index]))]),
    );
  });
  return list;
}

function outputView(spec, { data, shape }, description, single) {
  const classifies = description.task === 'classification' && shape.at(-1) === data.length && data.length > 1;
  const values = Array.from(data.subarray(0, 64), text).join(', ') + (data.length > 64 ? ', …' : '');
  const heading = single && classifies ? [] : [element('h3', '', `${spec.name} (${shape.join('x') || 'scalar'})`)];
  const body = classifies ? bars(Array.from(data, Number), description.classes) : element('pre', '', values);
  return element('div', '', [...heading, body]);
}

/** The largest difference to the outputs that the source model has for a sample. */
function largestError(outputs, expected) {
  let error = 0;
  for (const [name, values] of Object.entries(expected)) {
    values.forEach((value, index) => {
      error = Math.max(error, Math.abs(Number(outputs[name].data[index]) - value));
    });
  }
  return error;
}

let description = null;
let samples = [];
let inputs = [];
let current = -1;
let shown = null;

/** The values of a sample's input as numbers of its type. */
function tensorOf(name, sample) {
  const { dtype } = description.inputs.find((spec) => spec.name === name);
  return dtype.endsWith('int64') ? sample.inputs[name].map(BigInt) : sample.inputs[name];
}

const readInputs = () => Object.fromEntries(description.inputs.map((spec, index) => [spec.name, inputs[index].read()]));

async function run() {
  try {
    const values = readInputs();
    const started = performance.now();
    const outputs = await predict(values);
    const elapsed = performance.now() - started;
    const single = description.outputs.length === 1;
    find('outputs').replaceChildren(...description.outputs.map((spec) => outputView(spec, outputs[spec.name], description, single)));
    const unchanged = shown && description.inputs.every(({ name }) => String(values[name]) === shown[name]);
    const time = `${text(elapsed)} ms`;
    if (unchanged) {
      tell(`Sample ${current + 1} in ${time}; largest difference to the source model: ${text(largestError(outputs, samples[current].outputs))}`, 'good');
    } else {
      tell(`Your input in ${time}`);
    }
    window.lastOutputs = outputs;
  } catch (error) {
    find('outputs').replaceChildren();
    tell(String(error?.message ?? error), 'bad');
  }
}

async function nextSample() {
  current = (current + 1) % samples.length;
  description.inputs.forEach(({ name }, index) => inputs[index].show(samples[current].inputs[name]));
  const values = readInputs();
  shown = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, String(value)]));
  await run();
}

async function start() {
  description = await load();
  samples = await (await fetch(new URL('samples.json', import.meta.url))).json();
  document.title = description.model;
  find('title').textContent = description.model;
  find('facts').replaceChildren(...description.facts.map((fact) => element('li', '', fact)));
  inputs = description.inputs.map((spec) => (spec.image ? pictureInput(spec, spec.image) : numberInput(spec)));
  find('inputs').replaceChildren(...inputs.map(({ view }) => view));
  find('footer').textContent = 'The model runs in this page; no input leaves it.';
  // The first inference compiles code, and is no measure of the later ones.
  await predict(Object.fromEntries(description.inputs.map(({ name }) => [name, tensorOf(name, samples[0])])));
  find('run').addEventListener('click', run);
  find('sample').addEventListener('click', nextSample);
  for (const id of ['run', 'sample']) find(id).disabled = false;
  await nextSample();
}

start().catch((error) => tell(`The model could not be loaded: ${error?.message ?? error}`, 'bad'));
