use super::*;

#[test]
fn minted_money_is_there() {
    let sandbox = Sandbox::new().unwrap();
    let owner = Address::repeat_byte(7);
    let hash = sandbox.mint(owner, Amount::from(5)).unwrap();
    assert_eq!(sandbox.balance_of(owner).unwrap(), Amount::from(5));
    assert_eq!(sandbox.transaction(hash).unwrap().block, 2);
}
