/** For user 9, as the kernel has it (posix_acl_xattr.h). */
const acl = '0x0200000001000700ffffffff020005000900000004000500ffffffff10000700ffffffff20000500ffffffff';

/** Two image layers, the lower one first, with something for every case below to change. */
export const imageLayers = [
  `
  mkdir -p etc/conf.d usr/bin usr/share/empty var/lib/data/deep tmp moved/inner gone
  echo one >etc/one; echo two >etc/two; echo conf >etc/conf.d/a; echo base >var/lib/data/deep/file
  echo in >moved/inner/file; echo stay >moved/stay; echo gone >gone/file; echo under >usr/share/under
  echo linked >usr/bin/a; ln usr/bin/a usr/bin/b; ln usr/bin/a usr/share/c
  ln -s one etc/link; ln -s conf.d etc/dirlink; mkfifo tmp/fifo; mknod tmp/null c 1 3
  setfattr -n user.base -v image etc/conf.d; setfattr -n user.base -v image etc/one
  mkdir opt; mkdir opt/acl; setfattr -n system.posix_acl_default -v ${acl} opt/acl; echo in >opt/acl/in
  chmod 1777 tmp; chown 12:34 var/lib/data; chmod 4755 usr/bin/a
  touch -d '2001-02-03 04:05:06.123456789' etc/one etc/conf.d var/lib/data/deep; touch -d @1000000000.5 etc usr .
  `,
  `
  mkdir -p etc var/lib opt; echo upper layer >etc/two; echo top >opt/top; mknod gone c 0 0; mkdir -p usr/share
  touch -d @1000000001.25 etc . opt
  `,
];

/** Changes that a container makes, as shell scripts run in its root file system. */
export const changes: Record<string, string> = {
  'nothing at all': '',
  'modified files': 'echo more >>etc/one; echo more >>etc/two; chmod 600 opt/top; chown 7:8 usr/share/under',
  'added files': 'echo new >new; mkdir -p a/b/c; echo deep >a/b/c/d; echo in >etc/conf.d/new',
  'deleted files and directories': 'rm etc/one etc/link; rm -r var/lib/data opt',
  'a file that a layer deletes and the container makes again': 'echo back >gone',
  'a directory that a layer deletes and the container makes again': 'mkdir gone; echo other >gone/other',
  'emptied directories': 'rm -r var/lib/data/deep; rm etc/conf.d/a',
  'replaced directories':
    'rm -r var/lib; mkdir var/lib; echo new >var/lib/new; rm -r etc/conf.d; mkdir etc/conf.d',
  'directories with other modes, owners and times':
    "chmod 700 etc/conf.d; chown 5:6 opt; touch -d '1999-01-01 00:00:00.987654321' usr; chmod 711 .",
  'files replaced by directories':
    'rm etc/one; mkdir etc/one; echo in >etc/one/in; rm etc/link; mkdir -p etc/link/x',
  'directories replaced by files': 'rm -r etc/conf.d; echo file >etc/conf.d; rm -r opt; mkfifo opt',
  'directories replaced by symlinks':
    'rm -r etc/conf.d; ln -s /etc etc/conf.d; rm -r usr/share; ln -s ../../.. usr/share',
  'symlinks replaced by directories': 'rm etc/dirlink; mkdir etc/dirlink; echo in >etc/dirlink/a',
  symlinks:
    "ln -s /etc/passwd abs; ln -s ../../x up; ln -s nowhere dangling; ln -sf two etc/link; touch -h -d '2002-02-02 02:02:02.222222222' abs; chown -h 3:4 up",
  'hard links': 'echo x >x; ln x y; mkdir d; ln x d/z; ln etc/one one-more; ln -s t s; ln s s2',
  'one name of a hard-linked file': 'echo more >>usr/bin/a; rm usr/share/c',
  'fifos and device nodes':
    'mkfifo p; mknod b b 7 9; mknod c c 1 5; chmod 640 c; rm tmp/null; mknod tmp/null c 1 7',
  'extended attributes':
    'setfattr -n user.one -v 1 etc/one; setfattr -n trusted.two -v 2 opt; echo x >f; setfattr -n user.bin -v 0x00ff0a3d f; ln -s f l; setfattr -h -n trusted.link -v y l',
  'removed extended attributes': 'setfattr -x user.base etc/one; setfattr -x user.base etc/conf.d',
  'access control lists': `mkdir acl; setfattr -n system.posix_acl_access -v ${acl} acl; setfattr -n system.posix_acl_default -v ${acl} acl; echo in >acl/in`,
  'access control lists that are not inherited any more':
    'setfattr -x system.posix_acl_default opt/acl; echo new >opt/acl/new; setfattr -x system.posix_acl_access opt/acl/in',
  'file capabilities, setuid and setgid':
    'cp /bin/true t; chown 9:9 t; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 t; cp /bin/true u; chmod 6755 u; chown 1:1 u; chmod 2755 u; mkdir g; chmod 2775 g',
  owners: 'echo x >x; chown 4294967294:3000000 x; chown -h 1000:1000 etc/link; chown 1000:1000 etc/two',
  'holes and large files':
    'truncate -s 40M hole; echo end >>hole; truncate -s 3M empty-hole; head -c 3000000 /dev/urandom >random',
  'times to the nanosecond':
    "echo x >x; touch -d '2020-01-01 00:00:00.000000001' x; touch -d '1969-12-31 00:00:00.5' etc/two",
  'names that are not UTF-8':
    'd=$(printf "d\\377\\200"); mkdir "$d"; echo x >"$d/$(printf "f\\301")"; mkdir ü; echo y >ü/é',
  'names that tools trip over':
    'd=$(printf "new\\nline"); mkdir "$d"; echo x >"$d/$(printf "tab\\tback\\\\\\\\012")"; echo a >"--checkpoint-action=exec=false"; echo b >"-C"; echo c >"*"; echo d >" "; echo e >"\\"q"; mkdir "..." "a=b"; echo f >".../ ~"; setfattr -n user.x -v 1 "$d" "a=b"; rm -r etc/conf.d; mkdir "etc/conf.d"',
  'long names':
    'n=$(head -c 250 /dev/zero | tr "\\0" n); mkdir -p $n/$n/$n; echo x >$n/$n/$n/$n; ln -s $n/$n $n/$n/$n/l; ln $n/$n/$n/$n short',
  'renamed files and directories':
    'mv etc/one etc/uno; mv moved renamed; mv usr/bin opt/bin; mv etc/conf.d etc/old; mkdir etc/conf.d',
  'a renamed directory that was changed before and after':
    'echo x >moved/x; rm moved/stay; mv moved renamed; echo y >renamed/y; rm renamed/inner/file; mkdir moved; echo z >moved/z',
  'modes that shut everyone out': 'mkdir shut; echo x >shut/x; chmod 0 shut shut/x; chmod 0 etc/conf.d',
};

/** A container that has done a lot of its own before it is told to become another. */
export const busy = Object.entries(changes)
  .filter(([title]) => /^(modified|added|emptied|extended|removed|one name|owners|a file that)/.test(title))
  .map(([, script]) => script)
  .join('\n');

/** A root file system without layers. */
export const plainTree = `${imageLayers[0]}\n${changes['hard links']}\n${changes['file capabilities, setuid and setgid']}`;
