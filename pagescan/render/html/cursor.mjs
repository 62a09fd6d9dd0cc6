// The state that all parts of the page share: what is shown, and the moment under the cursor.

/** Returns a store: `get` its state, `set` parts of it, `watch` for changes. */
export function store(state) {
  const watchers = [];
  return {
    get: () => state,
    set(change) {
      const names = Object.keys(change).filter((name) => state[name] !== change[name]);
      if (!names.length) return;
      state = { ...state, ...change };
      for (const watcher of watchers) watcher(state, names);
    },
    watch: (watcher) => watchers.push(watcher),
  };
}
