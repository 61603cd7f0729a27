// The 3-D viewers of a page: each element "script[data-viewer]" holds the structures of one, compressed, and is shown behind itself.
"use strict";
(async () => {
  const unpacked = async (element) => {
    const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const part = (parent, className) => {
    const element = document.createElement("div");
    element.className = className;
    element.id = `viewer-${(part.count = (part.count || 0) + 1)}`;
    parent.append(element);
    return element.id;
  };
  // The place of a crystal on the axis of view, at which a sphere fills the picture: the camera stands at 150 and sees, without
  // perspective, a width of 2 d tan(20 degrees) at a distance of d.
  const setDistance = (data, id) => {
    const { camera } = data.settings.structure[0], { clientWidth, clientHeight } = document.getElementById(id);
    if (camera) camera.zoom = 150 - (camera.radius / Math.tan(Math.PI / 9)) * Math.max(1, clientWidth / clientHeight);
  };
  const show = async (script) => {
    const root = document.createElement("div");
    root.className = "viewer";
    script.after(root);
    const data = JSON.parse(await unpacked(script));
    // JSON has no NaN: a property without a value at a frame is null there.
    for (const property of Object.values(data.properties)) property.values = property.values.map((v) => v ?? NaN);
    const warnings = new Chemiscope.Warnings();
    warnings.addHandler((message) => console.warn(`chemiscope: ${message}`));
    const column = document.createElement("div");
    if (data.hasMap) {
      const left = document.createElement("div");
      root.append(left, column);
      const places = { meta: part(left, "viewer-meta"), map: part(left, "viewer-part") };
      Object.assign(places, { structure: part(column, "viewer-part"), info: part(column, "viewer-info") });
      setDistance(data, places.structure);
      await Chemiscope.DefaultVisualizer.load(places, data, warnings);
    } else {
      root.append(column);
      const places = { meta: part(column, "viewer-meta"), structure: part(column, "viewer-part"), info: part(column, "viewer-info") };
      setDistance(data, places.structure);
      await Chemiscope.StructureVisualizer.load(places, data, warnings);
    }
  };
  const scripts = document.querySelectorAll("script[data-viewer]");
  try {
    const library = document.createElement("script");
    library.textContent = await unpacked(document.getElementById("chemiscope"));
    document.head.append(library);
    for (const script of scripts) await show(script);
  } catch (error) {
    console.error(error);
    for (const script of scripts) {
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = `The viewer could not be shown by this browser: ${error.message}`;
      script.after(note);
    }
  }
})();
