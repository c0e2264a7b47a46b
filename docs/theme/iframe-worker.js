// A browser starts no worker for a page that was opened from a folder (file:). The search then runs in a hidden frame.
if (location.protocol === "file:") {
  const load = (inside, url) =>
    new Promise((done, failed) => {
      const script = inside.document.createElement("script");
      Object.assign(script, { src: new URL(url, location), onload: done, onerror: failed });
      inside.document.body.append(script);
    });

  // The theme would fetch a script from elsewhere if this file had another name.
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = Object.assign(document.createElement("iframe"), { hidden: true, srcdoc: "<body>" });
      this.started = new Promise((ready) => (this.frame.onload = ready)).then(() => {
        const inside = this.frame.contentWindow;
        inside.postMessage = (data) => this.receive(data);
        inside.importScripts = (...urls) =>
          urls.reduce((before, next) => before.then(() => load(inside, next)), Promise.resolve());
        return load(inside, url);
      });
      document.body.append(this.frame);
    }

    receive(data) {
      const event = new MessageEvent("message", { data: structuredClone(data) });
      this.dispatchEvent(event);
      this.onmessage?.(event);
    }

    postMessage(data) {
      const event = new MessageEvent("message", { data: structuredClone(data) });
      this.started.then(() => this.frame.contentWindow.dispatchEvent(event));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
