// Prints the addresses of functions, one "ADDRESS NAME" per line, and waits.
use std::io::{Read, Write};

mod house {
    pub struct Room(pub Vec<u8>);
    pub trait Enter {
        fn enter(&mut self);
    }
    impl Enter for Room {
        #[inline(never)]
        fn enter(&mut self) {
            self.0.push(1);
        }
    }
    #[inline(never)]
    pub fn leave() {
        std::hint::black_box(1);
    }
}

fn main() {
    let enter: fn(&mut house::Room) = <house::Room as house::Enter>::enter;
    enter(&mut house::Room(Vec::new()));
    println!("{:p} <named::house::Room as named::house::Enter>::enter", enter as *const ());
    println!("{:p} named::house::leave\n", house::leave as *const ());
    std::io::stdout().flush().unwrap();
    house::leave();
    let _ = std::io::stdin().read(&mut [0u8]);
}
