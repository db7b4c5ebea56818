// What a replica reaches its gateway by: the browser's own network, or in a sandbox that of the page around it.

/** As much of a WebSocket as a replica uses. */
export interface Socket {
  binaryType: BinaryType;
  readonly readyState: number;
  onopen: ((event: Event) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  onmessage: ((event: MessageEvent<string | ArrayBuffer>) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code: number): void;
}

export interface Network {
  /** Whether it reaches other servers than the gateway. */
  readonly reachesAll: boolean;
  /** As `fetch` does it; rejects when nobody answers. */
  get(url: string, options: RequestInit): Promise<Response>;
  open(url: string): Socket;
}

/** The browser's own. */
export const DIRECT: Network = {
  reachesAll: true,
  get: (url, options) => fetch(url, options),
  open: (url) => new WebSocket(url) as Socket,
};
