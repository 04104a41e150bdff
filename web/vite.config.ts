import { defineConfig } from "vite";

// Everything is relative: the page runs under any path prefix.
export default defineConfig({
  base: "./",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: { outDir: "built", target: "es2020", assetsInlineLimit: 0, modulePreload: false, reportCompressedSize: true },
});
