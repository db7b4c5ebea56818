// The only script of a sandbox's frame: makes a worker of the text that the page around it gives, and connects the two.

addEventListener("message", ({ source, data, ports }: MessageEvent<{ readonly source: string }>) => {
  const [port] = ports;
  if (source !== parent || !port) return;
  // A classic one: Chromium loads no module worker here.
  const worker = new Worker(URL.createObjectURL(new Blob([data.source], { type: "text/javascript" })));
  worker.postMessage(null, [port]);
});
