// Small pictures, as data URLs that fit into the history.

const SIDE = 176;

// Decoding takes the memory of a whole image: one after the other.
let last = Promise.resolve();

/** A square cut from the middle; null if the browser can't decode the image. */
export function makeThumbnail(file) {
  const next = last.then(() => render(file)).catch(() => null);
  last = next;
  return next;
}

async function render(file) {
  const image = await createImageBitmap(file);
  const side = Math.min(image.width, image.height);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // JPEG has no transparency
  context.fillRect(0, 0, SIDE, SIDE);
  context.imageSmoothingQuality = "high";
  const left = (image.width - side) / 2, top = (image.height - side) / 2;
  context.drawImage(image, left, top, side, side, 0, 0, SIDE, SIDE);
  image.close();
  return canvas.toDataURL("image/jpeg", 0.72);
}
