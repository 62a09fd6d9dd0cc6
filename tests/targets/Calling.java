// SPDX-License-Identifier: MIT
/** Writes each page of an array, again and again, two calls below main. */
public final class Calling {
	private static void inner(long[] memory, long value) {
		for (int i = 0; i < memory.length; i += 512)
			memory[i] = value;
	}

	private static void outer(long[] memory, long value) {
		inner(memory, value);
		memory[1] = value;
	}

	public static void main(String[] words) {
		long[] memory = new long[1 << 20];

		for (long turn = 0;; turn++) {
			outer(memory, turn);
			if (turn == 50_000) // both methods are compiled by now
				System.out.println("ready");
		}
	}
}
