// SPDX-License-Identifier: MIT
/** Keeps 64 KiB more every 20 ms, until its input ends. */
import java.util.ArrayList;
import java.util.List;

public final class Growing {
	public static void main(String[] words) throws Exception {
		List<long[]> kept = new ArrayList<>();

		System.out.println("ready");
		while (System.in.available() == 0) {
			long[] more = new long[8 << 10];

			for (int i = 0; i < more.length; i++)
				more[i] = i;
			kept.add(more);
			Thread.sleep(20);
		}
		System.out.println(0);
	}
}
