// SPDX-License-Identifier: MIT
/** Works in several threads, allocates all the time, and answers each line with its checks. */
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.concurrent.atomic.AtomicLong;

public final class Steady {
	private static final AtomicLong rounds = new AtomicLong();
	private static final AtomicLong faults = new AtomicLong();

	private static void work(int seed) {
		long[] kept = new long[1 << 16];

		for (long turn = 0;; turn++) {
			long[] fresh = new long[1 << 10];
			long sum = 0;

			for (int i = 0; i < fresh.length; i++)
				fresh[i] = seed + turn + i;
			for (long value : fresh)
				sum += value;
			kept[(int) (turn & 0xffff)] = turn;
			if (sum != 1024 * (seed + turn) + 1023 * 512 || kept[(int) (turn & 0xffff)] != turn)
				faults.incrementAndGet();
			rounds.incrementAndGet();
		}
	}

	public static void main(String[] words) throws Exception {
		BufferedReader input = new BufferedReader(new InputStreamReader(System.in));

		for (int i = 0; i < 4; i++) {
			int seed = i;
			Thread thread = new Thread(() -> work(seed));

			thread.setDaemon(true);
			thread.start();
		}
		do
			System.out.println(rounds.get() + " " + faults.get());
		while (input.readLine() != null);
	}
}
